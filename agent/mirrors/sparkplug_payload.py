"""Payloads of Sparkplug B on protobuf's wire format: what an edge node sends, and what it reads of a command.

Field numbers and data types as in Eclipse Tahu's ``sparkplug_b.proto``; wire format as in
https://protobuf.dev/programming-guides/encoding/.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_PAYLOAD_TIMESTAMP, _PAYLOAD_METRIC, _PAYLOAD_SEQ = 1, 2, 3
_NAME, _TIMESTAMP, _DATATYPE, _HISTORICAL, _NULL = 1, 3, 4, 5, 7
_LONG, _DOUBLE, _BOOLEAN, _STRING = 11, 13, 14, 15


MAX_COMMAND_BYTES = 65_536


class PayloadError(ValueError):
    """Bytes that are no payload: one sentence that says why."""


class DataType(IntEnum):
    """The data types that this edge node uses."""

    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12


@dataclass(frozen=True, slots=True)
class Metric:
    """One named value; None is null."""

    name: str
    datatype: DataType
    value: int | float | str | None
    timestamp_ms: int
    historical: bool = False


def encode(metrics: Iterable[Metric], timestamp_ms: int, seq: int | None) -> bytes:
    """A payload; ``seq`` None leaves the sequence number out, as a death certificate must."""
    parts = [_number(_PAYLOAD_TIMESTAMP, timestamp_ms)]
    parts += [_chunk(_PAYLOAD_METRIC, _metric(metric)) for metric in metrics]
    if seq is not None:
        parts.append(_number(_PAYLOAD_SEQ, seq))
    return b"".join(parts)


def commands(data: bytes) -> dict[str, bool]:
    """The Boolean metrics with a name of a payload from an untrusted sender. Raises PayloadError."""
    if len(data) > MAX_COMMAND_BYTES:
        raise PayloadError(f"it has {len(data)} bytes, above {MAX_COMMAND_BYTES}")
    found: dict[str, bool] = {}
    for field, value in _fields(data):
        if field != _PAYLOAD_METRIC or not isinstance(value, bytes):
            continue
        metric = dict(_fields(value))
        name, flag = metric.get(_NAME), metric.get(_BOOLEAN)
        if isinstance(name, bytes) and isinstance(flag, int):
            found[name.decode("utf-8", "replace")] = bool(flag)
    return found


def _metric(metric: Metric) -> bytes:
    parts = [
        _chunk(_NAME, metric.name.encode("utf-8", "replace")),
        _number(_TIMESTAMP, metric.timestamp_ms),
        _number(_DATATYPE, metric.datatype),
    ]
    if metric.historical:
        parts.append(_number(_HISTORICAL, 1))
    parts.append(_number(_NULL, 1) if metric.value is None else _value(metric.datatype, metric.value))
    return b"".join(parts)


def _value(datatype: DataType, value: int | float | str) -> bytes:
    if datatype is DataType.STRING:
        return _chunk(_STRING, str(value).encode("utf-8", "replace"))
    if datatype is DataType.DOUBLE:
        return _key(_DOUBLE, _FIXED64) + struct.pack("<d", value)
    return _number(_BOOLEAN if datatype is DataType.BOOLEAN else _LONG, int(value))


def _number(field: int, value: int) -> bytes:
    return _key(field, _VARINT) + _varint(value)


def _chunk(field: int, value: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(value)) + value


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers as 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _read_varint(data, at)
            yield key >> 3, number
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise PayloadError(f"wire type {kind} at byte {at} is not one of protobuf's")
        if size > len(data) - at:
            raise PayloadError(f"field at byte {at} needs {size} bytes, {len(data) - at} are left")
        yield key >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    raise PayloadError(f"no number at byte {at}")
