"""What devices told of their clocks, by which the time stamps of their results are corrected when they are read."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select

from agent.clock_epochs import Knowledge, from_document, to_document
from agent.hub import schema
from agent.hub.books import to_text

KEPT = 4096
"""Epochs of each device; the stamps of older ones stay as they came."""


def keep(connection: Connection, insert: Any, device: str, told: Mapping[str, Knowledge], now_us: int) -> None:
    """Takes in a report, within the caller's transaction. The later one of an epoch counts, but fixes outlast bounds.

    ``insert`` makes an INSERT statement of this database's kind.
    """
    clocks = schema.clocks.c
    known = load(connection, device)
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
    if len(known.keys() | better.keys()) > KEPT:
        oldest = select(clocks.epoch).where(clocks.device == device).order_by(clocks.received_us.desc(), clocks.epoch)
        gone = list(connection.execute(oldest.offset(KEPT)).scalars())
        connection.execute(delete(schema.clocks).where(clocks.device == device, clocks.epoch.in_(gone)))


def load(connection: Connection, device: str) -> dict[str, Knowledge]:
    """By epoch."""
    clocks = schema.clocks.c
    rows = connection.execute(select(clocks.epoch, clocks.body).where(clocks.device == device))
    return {row.epoch: from_document(json.loads(row.body)) for row in rows}
