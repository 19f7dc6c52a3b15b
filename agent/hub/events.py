"""What devices say of themselves, alarms for example: the newest of each device are kept, and all are counted."""

from typing import Any

from sqlalchemy import Connection, delete, select, update

from agent.hub import schema

KEPT = 1000
"""Events of each device that are kept; the numbers of the events say how many went."""


def keep(connection: Connection, insert: Any, device: str, bodies: list[str], now_us: int) -> None:
    """Takes in the events of a group, in the order of arrival, within the caller's transaction.

    ``insert`` makes an INSERT statement of this database's kind. An event that is there to the letter, its time
    included, has come again and is not kept twice.
    """
    counts, events = schema.event_counts, schema.events.c
    connection.execute(insert(counts).values(device=device, events=0).on_conflict_do_nothing())
    # Hubs that share the database number the events of a device one after the other.
    last = connection.execute(select(counts.c.events).where(counts.c.device == device).with_for_update()).scalar_one()
    known = set(
        connection.execute(select(events.body).where(events.device == device, events.body.in_(bodies))).scalars()
    )
    new = [body for body in dict.fromkeys(bodies) if body not in known]
    if not new:
        return
    rows = [
        {"device": device, "number": number, "received_us": now_us, "body": body}
        for number, body in enumerate(new, last + 1)
    ]
    connection.execute(insert(schema.events), rows[-KEPT:])
    total = last + len(new)
    connection.execute(update(counts).where(counts.c.device == device).values(events=total))
    connection.execute(delete(schema.events).where(events.device == device, events.number <= total - KEPT))
