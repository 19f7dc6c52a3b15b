"""InfluxDB's line protocol: ``measurement,tag=value field=1,text="..." nanoseconds``.

Escaping as in https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/#special-characters. What it
cannot carry, and what becomes of it: line feeds in names and tags (a blank); backslashes there before a blank, comma,
equals sign or at the end, which the database takes for escapes (left out); tags without a value and numbers that are
not finite (left out).
"""

import math
import re
from collections.abc import Iterable, Mapping

from agent.wire import Value

_NAME = str.maketrans({" ": r"\ ", "\n": r"\ ", "\r": r"\ ", "\t": r"\ ", "\0": r"\ ", ",": r"\,", "=": r"\="})
_AMBIGUOUS = re.compile(r"\\+(?=[ ,=\n\r\t\0]|\Z)")
_TEXT = str.maketrans({'"': r"\"", "\\": r"\\"})
_RESERVED = "time"
"""Databases refuse a field of this name."""


def line(measurement: str, tags: str, fields: Iterable[tuple[str, Value]], time_ns: int) -> str:
    """One point without its line feed; empty where no field has a value.

    ``measurement`` is a stream, whose name needs no escapes; ``tags`` comes from ``tag_set``. Numbers are written as
    floats throughout: a field that is an integer first and a float later is refused by the database.
    """
    written = [text for name, value in fields if (text := _field(name, value))]
    return f"{measurement}{tags} {','.join(written)} {time_ns}" if written else ""


def tag_set(tags: Mapping[str, str]) -> str:
    """``,key=value`` for each tag, sorted by key as databases like it best."""
    pairs = ((_name(key), _name(tags[key])) for key in sorted(tags))
    return "".join(f",{key}={value}" for key, value in pairs if key and value)


def _name(text: str) -> str:
    return _AMBIGUOUS.sub("", text).translate(_NAME)


def _field(name: str, value: Value) -> str:
    key = _name(f"{name}_" if name == _RESERVED else name)
    if not key or value is None:
        return ""
    if isinstance(value, str):
        return f'{key}="{value.translate(_TEXT)}"'
    try:
        number = float(value)
    except OverflowError:
        return ""
    return f"{key}={number!r}" if math.isfinite(number) else ""
