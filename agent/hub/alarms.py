"""Compares a device's books with the hub's whenever the device tells them, and keeps the difference as an alarm.

An alarm has a row per stream: what is wrong, since when, how often it happened. It rings until the books agree again.
"""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, or_, select, update

from agent.hub import schema
from agent.hub.books import Alarm, Difference, disagreement

QUIET_US = 10_000_000
"""Results of an ended boot are given up when nothing of it came for this long and the device says that it has none."""


@dataclass(frozen=True, slots=True)
class Report:
    """What metrics say of a device as a whole."""

    boot: str
    idle: bool
    """It holds nothing of earlier boots."""


def judge(connection: Connection, insert: Any, device: str, report: Report, now_us: int) -> list[Alarm]:
    """Rings and ends the alarms of a device that has just told its books; returns what changed.

    ``insert`` makes an INSERT statement of this database's kind. The accounts must be written already.
    """
    changes = []
    for row in connection.execute(_doubtful(device, report.boot)).all():
        key, rings = (row.device, row.boot, row.stream), row.until_us == 0
        found = _difference(row, report, now_us)
        if found and not rings:
            put = insert(schema.alarms).values(device=row.device, boot=row.boot, stream=row.stream, times=1)
            put = put.values(sentence=found.sentence, results=found.results, since_us=now_us, until_us=0)
            again = {name: put.excluded[name] for name in ("sentence", "results", "since_us", "until_us")}
            again["times"] = schema.alarms.c.times + 1
            connection.execute(put.on_conflict_do_update(index_elements=["device", "boot", "stream"], set_=again))
            changes.append(Alarm(key, found.sentence))
        elif found and found.sentence != row.sentence:
            values = {"sentence": found.sentence, "results": found.results}
            connection.execute(update(schema.alarms).where(_same(row)).values(**values))
        elif rings and not found:
            connection.execute(update(schema.alarms).where(_same(row)).values(until_us=now_us))
            changes.append(Alarm(key, ""))
    return changes


def _doubtful(device: str, boot: str) -> Any:
    """The streams of the present boot, those of others that lack something, and those with an alarm."""
    streams, alarms = schema.streams.c, schema.alarms.c
    same = and_(streams.device == alarms.device, streams.boot == alarms.boot, streams.stream == alarms.stream)
    lacks = streams.expected > streams.stored + streams.missing
    return (
        select(schema.streams, alarms.sentence, alarms.until_us)
        .select_from(schema.streams.outerjoin(schema.alarms, same))
        .where(streams.device == device, or_(streams.boot == boot, lacks, alarms.until_us == 0))
        .order_by(streams.boot, streams.stream)
    )


def _difference(row: Row[Any], report: Report, now_us: int) -> Difference | None:
    """What is wrong with one stream, if anything."""
    told = json.loads(row.told) if row.told else None
    wrong = disagreement(told, row.stored)
    if wrong:
        return wrong
    here = row.stored + row.missing
    if row.boot == report.boot or here >= row.expected:
        return None
    if row.until_us != 0 and not (report.idle and abs(now_us - row.last_us) > QUIET_US):
        return None
    lacking = row.expected - here
    return Difference(f"the boot has ended and {lacking} of its {row.expected} results never came", lacking)


def _same(row: Row[Any]) -> Any:
    alarms = schema.alarms.c
    return and_(alarms.device == row.device, alarms.boot == row.boot, alarms.stream == row.stream)
