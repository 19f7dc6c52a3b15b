"""What devices told of their clocks, by which the time stamps of their results are corrected when they are read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, select

from agent.clock_epochs import Knowledge, from_document, to_document
from agent.hub import schema
from agent.hub.books import to_text

KEPT = 4096
"""Epochs of each device; the stamps of older ones stay as they came."""


def keep(connection: Connection, insert: Any, device: str, told: Mapping[str, Knowledge], now_us: int) -> None:
    """Takes in a report, within the caller's transaction. The later one of an epoch counts, but fixes outlast bounds.

    ``insert`` makes an INSERT statement of this database's kind.
    """
    known = _read(connection, device, sorted(told))
    better = {name: new for name, new in told.items() if new.fixes or not (name in known and known[name].fixes)}
    rows = [
        {"device": device, "epoch": name, "body": to_text(to_document(new)), "received_us": now_us}
        for name, new in sorted(better.items())
        if known.get(name) != new
    ]
    if rows:
        put = insert(schema.clocks)
        new = {name: put.excluded[name] for name in ("body", "received_us")}
        connection.execute(put.on_conflict_do_update(index_elements=["device", "epoch"], set_=new), rows)
    if not better.keys() <= known.keys():
        _bound(connection, device)


def _bound(connection: Connection, device: str) -> None:
    """Forgets the oldest beyond ``KEPT``."""
    clocks = schema.clocks.c
    number = connection.execute(select(func.count()).where(clocks.device == device)).scalar_one()
    if number > KEPT:
        oldest = select(clocks.epoch).where(clocks.device == device).order_by(clocks.received_us.desc(), clocks.epoch)
        gone = list(connection.execute(oldest.offset(KEPT)).scalars())
        connection.execute(delete(schema.clocks).where(clocks.device == device, clocks.epoch.in_(gone)))


def load(connection: Connection, device: str) -> dict[str, Knowledge]:
    """All that is known of a device, by epoch."""
    return _read(connection, device, None)


def _read(connection: Connection, device: str, epochs: Sequence[str] | None) -> dict[str, Knowledge]:
    clocks = schema.clocks.c
    asked = select(clocks.epoch, clocks.body).where(clocks.device == device)
    rows = connection.execute(asked if epochs is None else asked.where(clocks.epoch.in_(epochs)))
    return {row.epoch: from_document(json.loads(row.body)) for row in rows}
