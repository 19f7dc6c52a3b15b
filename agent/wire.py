"""Batches on the wire, and the only place that knows wall-clock time.

A batch is JSON in columns, compressed with zstd::

    {"v": 1, "boot": "9f..", "stream": "kw", "seq": [1, 3], "clock": {"unc_ms": 2.1, "mono_us": 17.., "epoch": "ab.."},
     "t_us": [1700000000000000, 250000, 250000], "cols": {"label": "yes", "score": [0.91, 0.88, 0.97]}}

``t_us`` holds the first capture time (Unix microseconds) and then differences. ``clock.mono_us`` is wall clock minus
CLOCK_MONOTONIC when the batch was made: a reader that later learns the right offset in the same ``epoch`` of
CLOCK_MONOTONIC can correct the times (``agent.clock_epochs``). ``unc_ms`` is null while the kernel does not know how
wrong its clock is. A column that has one value throughout is that value. A gap record has ``"gap": {"cause": ".."}`` in
place of the times and columns.
"""

import json
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from operator import itemgetter
from typing import Any, Protocol, TypeAlias

import zstandard

from agent.clock_leap import GRAVE_US, LEAST_US, Leaps
from agent.kernel_clock import epoch_name, kernel_id, offset_ns, slept_us, uncertainty_ms
from agent.topics import is_name

Value: TypeAlias = int | float | str | None
Row: TypeAlias = Mapping[str, Value]

MAX_WIRE_BYTES = 1 << 20
MAX_PLAIN_BYTES = 4 << 20
MAX_ROWS = 1000
MAX_COLUMNS = 64
MAX_SEQ = (1 << 53) - 1
MAX_UNCERTAINTY_MS = 1e12
_FARTHEST_NS = 1 << 62
"""Of a capture time; beyond it is none, and ``t_us`` would leave its 53 bits."""
VERSION = 1
CONTENT_TYPE = "application/json"
CONTENT_ENCODING = "zstd"

_LEVEL = 3
_SECOND_NS = 1_000_000_000


class WireError(ValueError):
    """Bytes that are no batch: one sentence that says why."""


class TooLarge(WireError):
    """Rows that do not go into one batch."""


class Clock(Protocol):
    """Both clocks of a device."""

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC."""

    def offset_us(self) -> int:
        """Wall clock (Unix time) minus CLOCK_MONOTONIC, now."""

    def uncertainty_ms(self) -> float | None:
        """How wrong the wall clock may be; None while the kernel does not know."""

    def epoch(self) -> str:
        """Names the origin of CLOCK_MONOTONIC: where it is the same, the right offset is the same."""

    def is_settled(self) -> bool:
        """Known, and without a leap for so long that what is thrown away by age may go by the wall clock."""


class SystemClock:
    """The clocks of this machine. The uncertainty is asked of the kernel at most once a second."""

    def __init__(self) -> None:
        self._kernel: str | None = None
        self._offset_us: int | None = None
        self._set_at_s = 0.0
        self._asked_ns = -_SECOND_NS
        self._uncertainty_ms: float | None = None
        self._leaps = Leaps(GRAVE_US)

    monotonic_ns = staticmethod(time.monotonic_ns)

    def offset_us(self) -> int:
        offset_us = offset_ns(time.time_ns) // 1000
        before_us = self._offset_us
        if before_us is None:
            self._offset_us = offset_us
        elif abs(offset_us - before_us) >= LEAST_US:  # what was known of its uncertainty is known no longer
            self._offset_us, self._asked_ns = offset_us, -_SECOND_NS
            self._set_at_s = time.time()
        return offset_us

    def uncertainty_ms(self) -> float | None:
        now_ns = time.monotonic_ns()
        if now_ns - self._asked_ns >= _SECOND_NS:
            self._asked_ns = now_ns
            self._uncertainty_ms = uncertainty_ms(self._set_at_s)
        return self._uncertainty_ms

    def epoch(self) -> str:
        if self._kernel is None:
            self._kernel = kernel_id()
        return epoch_name(self._kernel, slept_us())

    def is_settled(self) -> bool:
        self._leaps.look(self.monotonic_ns(), self.offset_us() - slept_us())
        return self.uncertainty_ms() is not None and self._leaps.is_settled(self.monotonic_ns())


def wall_us() -> int:
    """Unix time in microseconds, for status messages and for people."""
    return time.time_ns() // 1000


def iso_time(unix_us: int) -> str:
    """``2025-01-31T12:00:00.123456Z``; a time outside the calendar becomes the bare number."""
    try:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_us // 1_000_000))
    except (OverflowError, OSError, ValueError):
        return str(unix_us)
    return f"{text}.{unix_us % 1_000_000:06d}Z"


class _Zstd(threading.local):
    """A compressor is expensive to make, and no two threads may use one."""

    def __init__(self) -> None:
        # With a checksum in the frame: four bytes for the certainty that neither the flash nor anybody else changed it.
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)


_zstd = _Zstd()
_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """A decoded batch of one boot and stream, or a gap record (``cause`` set, no rows)."""

    boot: str
    stream: str
    seq0: int
    seq1: int
    t_us: tuple[int, ...] = ()
    columns: Mapping[str, Any] | None = None
    uncertainty_ms: float | None = None
    cause: str = ""
    offset_us: int | None = None
    """Wall clock minus CLOCK_MONOTONIC, as the times were made with it; None if an older axond did not say."""
    epoch: str = ""
    """Of CLOCK_MONOTONIC; empty if nobody knows."""

    @property
    def rows(self) -> list[dict[str, Value]]:
        """One dict per result: ``seq``, ``t_us`` and the columns. Empty for a gap record."""
        columns = {
            name: values if isinstance(values, list) else [values] * len(self.t_us)
            for name, values in (self.columns or {}).items()
        }
        names = ("seq", "t_us", *columns)
        lines = zip(range(self.seq0, self.seq1 + 1), self.t_us, *columns.values(), strict=False)
        return [dict(zip(names, line, strict=True)) for line in lines]

    @property
    def stamped_rows(self) -> list[dict[str, Value]]:
        """``rows`` with ``t_unc_ms`` after ``t_us``: how wrong that may be, None if nobody knows."""
        order = {"seq": None, "t_us": None, "t_unc_ms": None}
        return [{**order, **row, "t_unc_ms": self.uncertainty_ms} for row in self.rows]


def encode(boot: str, stream: str, seq0: int, rows: Sequence[tuple[int, Row]], clock: Clock) -> bytes:
    """Makes a batch of 1 to ``MAX_ROWS`` rows, numbered from ``seq0``.

    Each row comes with the CLOCK_MONOTONIC time (ns) that holds if it has no ``t_ns`` of its own. A name that a row
    lacks is null there. Floats are cut to 7 significant digits, what a float32 is good for; NaN and infinities become
    null. Raises TooLarge where several rows are.
    """
    offset_us = clock.offset_us()
    times_us = [_time_ns(row, put_ns) // 1000 + offset_us for put_ns, row in rows]
    document = {
        "v": VERSION,
        "boot": boot,
        "stream": stream,
        "seq": (seq0, seq0 + len(rows) - 1),
        "clock": {"unc_ms": clock.uncertainty_ms(), "mono_us": offset_us, "epoch": clock.epoch()},
        "t_us": [times_us[0], *(b - a for a, b in pairwise(times_us))],
        "cols": _columns([row for _, row in rows]),
    }
    text = _text(document)
    if len(text) > MAX_PLAIN_BYTES // 2 and len(rows) > 1:
        raise TooLarge(f"{len(rows)} rows have {len(text)} bytes")
    return _zstd.compressor.compress(text)


def encode_gap(boot: str, stream: str, seq0: int, seq1: int, cause: str) -> bytes:
    """Makes the record that tells the hub that these results will never come, and why."""
    document = {"v": VERSION, "boot": boot, "stream": stream, "seq": (seq0, seq1), "gap": {"cause": cause}}
    return _zstd.compressor.compress(_text(document))


def is_genuine(data: bytes, boot: str, stream: str, seq0: int, seq1: int, is_gap: bool) -> bool:
    """Whether these bytes are, unchanged, what ``encode`` or ``encode_gap`` made for these numbers."""
    kind = "gap" if is_gap else "clock"
    head = f'{{"v":{VERSION},"boot":"{boot}","stream":"{stream}","seq":[{seq0},{seq1}],"{kind}":'
    try:
        return _plain_text(data).startswith(head.encode())
    except WireError:
        return False


def decode(data: bytes) -> Batch:
    """Reads a batch or gap record from an untrusted sender; ``WireError`` for anything else."""
    document = _unpack(data)
    boot, stream, seq = document.get("boot"), document.get("stream"), document.get("seq")
    if document.get("v") != VERSION:
        raise WireError(f"batch version is {document.get('v')!r}, expected {VERSION}")
    if not (is_name(boot) and is_name(stream)):
        raise WireError("boot and stream must be names of [a-z0-9_-], 1 to 64 characters")
    if not (isinstance(seq, list) and len(seq) == 2 and all(type(s) is int for s in seq)):
        raise WireError("seq must be two whole numbers, first and last")
    if not 1 <= seq[0] <= seq[1] <= MAX_SEQ:
        raise WireError(f"seq {seq[0]} to {seq[1]} is not a range from 1 on")
    if "gap" in document:
        gap = document["gap"]
        cause = gap.get("cause") if isinstance(gap, dict) else None
        if not (isinstance(cause, str) and 1 <= len(cause) <= 200 and cause.isascii() and cause.isprintable()):
            raise WireError("a gap record needs a cause of 1 to 200 ASCII characters")
        return Batch(str(boot), str(stream), seq[0], seq[1], cause=cause)
    count = seq[1] - seq[0] + 1
    if count > MAX_ROWS:
        raise WireError(f"seq {seq[0]} to {seq[1]} is {count} rows, at most {MAX_ROWS} are allowed")
    uncertainty_ms, offset_us, epoch = _checked_clock(document.get("clock"))
    return Batch(
        str(boot),
        str(stream),
        seq[0],
        seq[1],
        _checked_times(document.get("t_us"), count),
        _checked_columns(document.get("cols"), count),
        uncertainty_ms,
        offset_us=offset_us,
        epoch=epoch,
    )


def identity(data: bytes) -> tuple[str, str, int, int] | None:
    """Boot, stream, first and last number that bytes name which are no good as a batch; None if they do not."""
    try:
        document = _unpack(data)
    except WireError:
        return None
    boot, stream, seq = document.get("boot"), document.get("stream"), document.get("seq")
    if not (isinstance(seq, list) and len(seq) == 2 and all(type(s) is int for s in seq)):
        return None
    named = is_name(boot) and is_name(stream) and 1 <= seq[0] <= seq[1] <= MAX_SEQ
    return (str(boot), str(stream), seq[0], seq[1]) if named else None


def _time_ns(row: Row, put_ns: int) -> int:
    time_ns = row.get("t_ns")
    if type(time_ns) is not int:
        try:
            time_ns = put_ns if time_ns is None else int(time_ns)
        except (TypeError, ValueError, OverflowError):
            return put_ns
    return time_ns if -_FARTHEST_NS < time_ns < _FARTHEST_NS else put_ns


def _columns(rows: list[Row]) -> dict[str, object]:
    names = [name for name in dict.fromkeys(chain.from_iterable(rows)) if name != "t_ns"]
    if len(names) > MAX_COLUMNS:
        raise TooLarge(f"{len(names)} columns, at most {MAX_COLUMNS} go into a batch")
    columns: dict[str, object] = {}
    for name, raw in zip(names, _values(rows, names), strict=True):
        values, kinds = raw, set(map(type, raw))
        if kinds == {float}:
            values = _short_floats(values)
        elif not kinds <= {int, str, type(None)}:
            values = [plain(value) for value in values]
        uniform = len(kinds) == 1 and values.count(values[0]) == len(values)
        columns[str(name)] = values[0] if uniform else values
    return columns


def _values(rows: list[Row], names: list[str]) -> Iterable[list[Value]]:
    """Column by column; what a row lacks is None."""
    try:
        return [list(map(itemgetter(name), rows)) for name in names]
    except KeyError:
        return ([row.get(name) for row in rows] for name in names)


def _short_floats(values: list[Value]) -> list[Value]:
    """What ``plain`` does to each value, in one go: most columns are of this kind."""
    text = "%.7g " * len(values) % tuple(values)
    shortened = map(float, text.split())
    if "n" in text:  # nan, inf
        return [value if math.isfinite(value) else None for value in shortened]
    return list(shortened)


def plain(value: object) -> Value:
    """What JSON can carry; numpy scalars come this way too, anything else becomes its text."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, bool):
        return int(value)
    if value is None or isinstance(value, int | str):
        return value
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "ndim", None) == 0:
        bare = item()
        return str(value) if type(bare) is type(value) else plain(bare)  # a longdouble has no bare form
    return str(value)


def _text(document: dict[str, Any]) -> bytes:
    return _json.encode(document).encode("utf-8", "replace")


def _unpack(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(_plain_text(data))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise WireError(f"batch is not JSON: {error}") from error
    except ValueError as error:  # an integer with more digits than Python converts
        if isinstance(error, WireError):
            raise
        raise WireError(f"batch has a number out of range: {error}") from error
    if not isinstance(document, dict):
        raise WireError("batch is not a JSON object")
    return document


def _plain_text(data: bytes) -> bytes:
    if len(data) > MAX_WIRE_BYTES:
        raise WireError(f"batch has {len(data)} bytes, at most {MAX_WIRE_BYTES} are allowed")
    try:
        # The size in the header is what zstd allocates, so it is judged before anything is decompressed.
        size_bytes = int(zstandard.frame_content_size(data))
        if not 0 < size_bytes <= MAX_PLAIN_BYTES:
            raise WireError(f"batch declares {size_bytes} bytes when unpacked, allowed are 1 to {MAX_PLAIN_BYTES}")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise WireError(f"batch of {len(data)} bytes is not zstd: {error}") from error


def is_uncertainty(number: object) -> bool:
    """Whether it is a number of milliseconds that can be calculated with."""
    return isinstance(number, int | float) and type(number) is not bool and 0 <= number <= MAX_UNCERTAINTY_MS


def _checked_clock(clock: object) -> tuple[float | None, int | None, str]:
    """The uncertainty, the offset and the epoch; an older axond did not name epochs."""
    if not isinstance(clock, dict):
        return None, None, ""
    uncertainty_ms, offset_us, epoch = (clock.get(name) for name in ("unc_ms", "mono_us", "epoch"))
    if uncertainty_ms is not None and not is_uncertainty(uncertainty_ms):
        raise WireError("clock.unc_ms must be a number from 0 on or null")
    if offset_us is not None and not (type(offset_us) is int and -MAX_SEQ <= offset_us <= MAX_SEQ):
        raise WireError("clock.mono_us must be a whole number of 53 bits or null")
    if epoch is not None and epoch != "" and not is_name(epoch):
        raise WireError("clock.epoch must be a name of [a-z0-9_-], 1 to 64 characters")
    return uncertainty_ms, offset_us, epoch or ""


def _checked_times(times: object, count: int) -> tuple[int, ...]:
    if not (isinstance(times, list) and all(type(t) is int for t in times)):
        raise WireError("t_us must be a list of whole numbers")
    if len(times) != count:
        raise WireError(f"t_us has {len(times)} entries, seq says {count}")
    absolute = tuple(accumulate(times))
    if not all(-MAX_SEQ <= t <= MAX_SEQ for t in absolute):
        raise WireError("t_us leaves the range of 53 bits")
    return absolute


def _checked_columns(columns: object, count: int) -> Mapping[str, Any]:
    if not isinstance(columns, dict) or len(columns) > MAX_COLUMNS:
        raise WireError(f"cols must be an object of at most {MAX_COLUMNS} columns")
    for name, values in columns.items():
        if isinstance(values, list) and len(values) != count:
            raise WireError(f"column {name[:64]!r} has {len(values)} values, seq says {count}")
        cells = values if isinstance(values, list) else (values,)
        if any(isinstance(cell, list | dict) for cell in cells):
            raise WireError(f"column {name[:64]!r} holds something that is no number, text or null")
    return columns
