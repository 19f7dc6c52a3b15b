"""What the hub has, for people and programs: devices, results, ledgers. Works beside running hubs."""

import json
from collections import Counter
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, func, literal, select
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import Self

from agent.clock_epochs import Table, restamp
from agent.errors import ConfigError
from agent.hub import clocks, schema
from agent.hub.books import Device, DeviceEvent, Difference, Stream, StreamLedger
from agent.hub.database import Target, connect, label
from agent.hub.ranges import Range
from agent.wire import Value, decode

READ_BATCHES = 100
"""Batches that are in memory at once, whatever is asked for."""


class HubReader:
    """One connection, used by one thread. Each question is answered from one moment's state of the store.

    SQLAlchemy's ``OperationalError`` means busy or away: try again.
    """

    def __init__(self, engine: Engine, target: Target) -> None:
        self._engine = engine
        self._target = target

    @classmethod
    def open_for_reading(cls, target: Target) -> Self:
        """Opens what a hub has made. ``FileNotFoundError``: there is nothing (yet); ``ConfigError``: it is not it."""
        engine = connect(target, read_only=True)
        try:
            with engine.begin() as connection:
                version = schema.version_of(connection)
                ready = version == schema.VERSION and schema.is_complete(connection)
        except schema.ForeignSchemaError as error:
            engine.dispose()
            raise ConfigError(f"hub store {label(target)}: {error}") from error
        except SQLAlchemyError:
            engine.dispose()
            raise
        if not ready:
            engine.dispose()
            what = (
                "is just being made, or empty" if version == 0 else "is of an older axond until a hub has run with it"
            )
            raise FileNotFoundError(f"no hub store {label(target)} yet: it {what}")
        return cls(engine, target)

    def close(self) -> None:
        self._engine.dispose()

    def devices(self) -> list[Device]:
        """Every device that was ever heard of, by name."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        last_us: dict[str, int] = {}
        with self._engine.begin() as connection:
            for row in connection.execute(select(schema.documents)):
                found.setdefault(row.device, {})[row.kind] = json.loads(row.body)
                last_us[row.device] = max(row.received_us, last_us.get(row.device, 0))
            columns = schema.streams.c
            for name, heard_us in connection.execute(
                select(columns.device, func.max(columns.last_us)).group_by(columns.device)
            ):
                last_us[name] = max(heard_us, last_us.get(name, 0))
            rejected = _per_device(connection, schema.rejected, func.sum(schema.rejected.c.messages))
            alarms: Counter[str] = Counter(row.device for row in connection.execute(_ringing()))
            events = {row.device: int(row.events) for row in connection.execute(select(schema.event_counts))}
            newest = {event.device: event for event in _newest_events(connection)}
        names = sorted({*last_us, *newest, *(name for name in rejected if name)})
        return [
            Device(
                name,
                **{kind: found.get(name, {}).get(kind, {}) for kind in ("status", "info", "metrics")},
                last_us=max(last_us.get(name, 0), newest[name].received_us if name in newest else 0),
                rejected=rejected.get(name, 0),
                alarms=alarms[name],
                events=events.get(name, 0),
                last_event=newest[name].event if name in newest else {},
            )
            for name in names
        ]

    def streams(self, device: str) -> list[str]:
        """The streams of a device, in the order in which the hub first heard of them."""
        streams = schema.streams.c
        first_us = func.min(streams.first_us)
        asked = select(streams.stream).where(streams.device == device).group_by(streams.stream)
        with self._engine.begin() as connection:
            return list(connection.execute(asked.order_by(first_us, streams.stream)).scalars())

    def results(
        self,
        device: str,
        stream: str,
        limit: int = 100,
        *,
        boot: str | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
    ) -> list[dict[str, Value]]:
        """The newest ``limit`` results of a stream, oldest first: ``boot``, ``seq``, ``t_us``, ``t_unc_ms``, columns.

        ``t_us`` is corrected by what the device told later of its clock, ``t_unc_ms`` how wrong it may be still (None:
        nobody knows).
        Boots come in the order in which the hub first heard of them, the results of a boot in the order of their
        numbers. ``since_us`` and ``until_us``: only what the hub received from then, and before then.
        """
        streams, batches = schema.streams.c, schema.batches.c
        boots = select(streams.boot).where(streams.device == device, streams.stream == stream)
        boots = boots if boot is None else boots.where(streams.boot == boot)
        # Each batch has a result at least. Without the rest PostgreSQL would send everything before the first is seen.
        found = select(batches.seq0, batches.seq1, batches.payload).order_by(batches.seq0.desc()).limit(limit)
        found = found.execution_options(yield_per=READ_BATCHES)
        found = found.where(batches.device == device, batches.stream == stream)
        found = found if since_us is None else found.where(batches.received_us >= since_us)
        found = found if until_us is None else found.where(batches.received_us < until_us)
        newest: list[dict[str, Value]] = []
        with self._engine.begin() as connection:
            table = clocks.load(connection, device)
            names = connection.execute(boots.order_by(streams.first_us.desc(), streams.boot.desc())).scalars().all()
            for name in names:
                with closing(connection.execute(found.where(batches.boot == name))) as cursor:
                    for seq0, seq1, payload in cursor:
                        newest += reversed([{"boot": name, **row} for row in _rows(payload, (seq0, seq1), table)])
                        if len(newest) >= limit:
                            return newest[:limit][::-1]
        return newest[::-1]

    def ledger(self, device: str | None = None) -> list[StreamLedger]:
        """The account of every device, boot and stream, counted anew from what is stored."""
        streams, alarms = schema.streams.c, schema.alarms.c
        accepted: dict[Stream, Row[Any]] = {}
        asked = select(schema.streams).order_by(streams.device, streams.first_us, streams.boot, streams.stream)
        with self._engine.begin() as connection:
            held = _counted(connection, schema.batches, device)
            gone = _counted(connection, schema.gaps, device)
            ringing = {
                (row.device, row.boot, row.stream): Difference(row.sentence, row.results)
                for row in connection.execute(select(schema.alarms).where(alarms.until_us == 0))
            }
            for row in connection.execute(select(schema.accepted)):
                accepted[row.device, row.boot, row.stream] = row
            rows = connection.execute(asked if device is None else asked.where(streams.device == device)).all()
        lines = []
        for row in rows:
            key = (row.device, row.boot, row.stream)
            lines.append(
                StreamLedger(
                    *key,
                    upto=row.upto,
                    stored=held.get(key, 0) + row.expired,
                    missing=gone.get(key, 0),
                    duplicates=row.duplicates,
                    reported=json.loads(row.told) if row.told else None,
                    ahead=sum(last - first + 1 for first, last in json.loads(row.ahead or "[]")),
                    expired=row.expired,
                    booked=row.stored,
                    alarm=ringing.get(key),
                    accepted=accepted[key].results if key in accepted else 0,
                    accepted_us=accepted[key].accepted_us if key in accepted else 0,
                )
            )
        return lines

    def gaps(self, device: str) -> list[tuple[str, str, int, int, str]]:
        """Boot, stream, first and last number and cause of everything a device gave up."""
        gaps = schema.gaps.c
        asked = select(gaps.boot, gaps.stream, gaps.seq0, gaps.seq1, gaps.cause).where(gaps.device == device)
        with self._engine.begin() as connection:
            rows = connection.execute(asked.order_by(gaps.received_us, gaps.boot, gaps.stream, gaps.seq0)).all()
        return [(row.boot, row.stream, row.seq0, row.seq1, row.cause) for row in rows]

    def events(self, device: str | None = None, limit: int = 100) -> list[DeviceEvent]:
        """The newest ``limit`` events of a device or of all, oldest first."""
        events = schema.events.c
        asked = select(schema.events)
        if device is None:
            asked = asked.order_by(events.received_us.desc(), events.device.desc(), events.number.desc())
        else:
            asked = asked.where(events.device == device).order_by(events.number.desc())
        with self._engine.begin() as connection:
            return [_event(row) for row in connection.execute(asked.limit(limit))][::-1]

    def rejected(self) -> dict[tuple[str, str], int]:
        """Device and what was wrong -> number of messages."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(schema.rejected)).all()
        return {(row.device, row.kind): row.messages for row in rows}


def _rows(payload: bytes, part: Range, table: Table) -> list[dict[str, Value]]:
    """The results of a batch that count, with the times that they should have."""
    batch = restamp(decode(payload), table)
    return batch.stamped_rows[part[0] - batch.seq0 : part[1] - batch.seq0 + 1]


def _event(row: Row[Any]) -> DeviceEvent:
    return DeviceEvent(row.device, row.number, row.received_us, json.loads(row.body))


def _newest_events(connection: Connection) -> list[DeviceEvent]:
    """The last of each device."""
    events, counts = schema.events, schema.event_counts.c
    last = and_(events.c.device == counts.device, events.c.number == counts.events)
    return [_event(row) for row in connection.execute(select(events).join(schema.event_counts, last))]


def _ringing() -> Any:
    """The alarms that nobody has accepted, one row for each."""
    alarms, accepted = schema.alarms.c, schema.accepted.c
    same = and_(alarms.device == accepted.device, alarms.boot == accepted.boot, alarms.stream == accepted.stream)
    known = func.coalesce(accepted.results, 0)
    asked = select(alarms.device).select_from(schema.alarms.outerjoin(schema.accepted, same))
    return asked.where(alarms.until_us == 0, alarms.results > known)


def _per_device(connection: Connection, table: Any, number: Any) -> dict[str, int]:
    rows = connection.execute(select(table.c.device, number).group_by(table.c.device))
    return {device: int(count) for device, count in rows}


def _counted(connection: Connection, table: Any, device: str | None) -> dict[tuple[str, str, str], int]:
    """Numbers in the ranges of ``table``, by stream."""
    key = (table.c.device, table.c.boot, table.c.stream)
    asked = select(*key, func.sum(table.c.seq1 - table.c.seq0 + literal(1))).group_by(*key)
    rows = connection.execute(asked if device is None else asked.where(table.c.device == device))
    return {(row[0], row[1], row[2]): int(row[3]) for row in rows}
