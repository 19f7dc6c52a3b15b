"""Writes pending results as JSON lines, CSV or Parquet, with the times that they should have as far as is known now."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, TypeAlias

from agent.clock import read_table
from agent.clock_epochs import restamp
from agent.outbox_reader import records
from agent.record import Record
from agent.wire import Value, decode
from drivers.extras import how_to_install

Format: TypeAlias = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")

_GROUP_ROWS = 10_000
_FIXED = ("boot", "stream", "seq", "t_us", "t_unc_ms")


class NoParquet(Exception):
    """What to install: one sentence."""


def write_jsonl(path: Path, out: TextIO) -> None:
    """One JSON object per result."""
    for row in _rows(records(path), path):
        out.write(json.dumps(row) + "\n")


def write_csv(path: Path, out: TextIO) -> None:
    """One line per result under the columns of all streams; what a stream does not have is empty."""
    last_id, kinds = _columns(path)
    writer = csv.DictWriter(out, [*_FIXED, *kinds], restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(_up_to(path, last_id), path))


def write_parquet(path: Path, out: BinaryIO) -> None:
    """One table with the columns of all streams: whole numbers, floats or texts. Raises NoParquet."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise NoParquet(f"Parquet needs pyarrow: {how_to_install('parquet')}, or export csv") from None
    last_id, kinds = _columns(path)
    types: dict[type, Any] = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    fields: dict[str, type] = {"boot": str, "stream": str, "seq": int, "t_us": int, "t_unc_ms": float, **kinds}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in fields.items()])
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for rows in _groups(_rows(_up_to(path, last_id), path)):
            columns = {name: [_as(kind, row.get(name)) for row in rows] for name, kind in fields.items()}
            writer.write_table(pyarrow.table(columns, schema))


def _up_to(path: Path, last_id: int) -> Iterator[Record]:
    """What a running agent has added since the columns were looked at may have others."""
    return (record for record in records(path) if record.id <= last_id)


def _rows(found: Iterable[Record], path: Path) -> Iterator[dict[str, Value]]:
    table = read_table(path.parent)
    for record in found:
        for row in restamp(decode(record.payload), table).stamped_rows:
            yield {"boot": record.boot, "stream": record.stream, **row}


def _columns(path: Path) -> tuple[int, dict[str, type]]:
    """The last id, and the columns that any result has, each with the narrowest kind that holds all its values."""
    last_id = 0
    kinds: dict[str, type] = {}
    for record in records(path):
        last_id = record.id
        for name, values in (decode(record.payload).columns or {}).items():
            for value in values if isinstance(values, list) else [values]:
                if value is not None:
                    kinds[name] = _wider(kinds.get(name, type(value)), type(value))
            kinds.setdefault(name, int)
    return last_id, {name: kind for name, kind in kinds.items() if name not in _FIXED}


def _wider(one: type, other: type) -> type:
    return one if one is other else float if {one, other} == {int, float} else str


def _as(kind: type, value: Value) -> Value:
    return None if value is None else kind(value)


def _groups(rows: Iterator[dict[str, Value]]) -> Iterator[list[dict[str, Value]]]:
    group: list[dict[str, Value]] = []
    for row in rows:
        group.append(row)
        if len(group) == _GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group
