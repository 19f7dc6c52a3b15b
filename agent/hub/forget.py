"""Removes the accounts of ended boots of which nothing is kept: each start of an agent leaves one per stream."""

from sqlalchemy import Connection, and_, delete, exists, select

from agent.hub import schema


def forget(connection: Connection, before_us: int, limit: int) -> int:
    """Up to ``limit`` accounts without news since then, all of whose results were removed; returns how many went.

    Kept are those that an alarm rings for, and those of boots without a later one that is known for as long: until then
    the device may still send what it has of them.
    """
    streams, alarms = schema.streams.c, schema.alarms.c
    newer = schema.streams.alias()
    same = and_(alarms.device == streams.device, alarms.boot == streams.boot, alarms.stream == streams.stream)
    later = (
        *(newer.c.device == streams.device, newer.c.boot != streams.boot),
        *(newer.c.first_us > streams.first_us, newer.c.first_us < before_us),
    )
    found = connection.execute(
        select(schema.streams)
        .where(streams.last_us < before_us, streams.expired == streams.stored)
        .where(exists().where(*later))
        .where(~exists().where(same, alarms.until_us == 0))
        .order_by(streams.last_us)
        .limit(limit)
        .with_for_update(of=schema.streams, skip_locked=True)
    ).all()
    for table in (schema.gaps, schema.alarms, schema.accepted, schema.streams):
        for row in found:
            key = (table.c.device == row.device, table.c.boot == row.boot, table.c.stream == row.stream)
            connection.execute(delete(table).where(*key))
    return len(found)
