"""Text that sketches for transducer arrays print: ``12.3,45.6,0.0``, ``S1:123 S2:456`` or ``{"t":1234,"d":[123,456]}``.

One line per cycle of the array, ended by LF or CR LF. The kinds of lines may be mixed.
"""

import re

import numpy as np

from drivers.lib.clock import sent_ns
from drivers.lib.framing import Offsets
from drivers.lib.timeline import Rows

LONGEST_LINE = 4096
_JSON = re.compile(rb'\{[^{}]*"d"\s*:\s*\[([^\[\]]*)\][^{}]*\}')
_JSON_TICK = re.compile(rb'"t"\s*:\s*(\d{1,10})\b')
_LABELLED = re.compile(rb"\w{1,8}[:=]\s*([^\s:=,]*)(?=[\s,]|$)")
_NUMBER = re.compile(rb"\s*(\d{1,7})(?:\.(\d{1,6}))?\s*")
_NO_ECHO = re.compile(rb"\s*(?:|nan|inf|ovf|null|none|-+|-1(?:\.0*)?)\s*", re.IGNORECASE)
TICKS = 1 << 32
NO_VALUE = 0


class TextParser:
    """Lines to rows of ``count`` integers in 1/``steps`` of what is printed.

    A field without a number (``nan``, ``ovf``, nothing) is 0. A line with any other content, or with another number of
    fields, is given up. So is the first one, which may have been cut.
    """

    def __init__(self, count: int, steps: int, baud: int) -> None:
        self.row_bytes = 4 * count
        self._count = count
        self._steps = steps
        self._baud = baud
        self._rest = b""
        self._begun = False
        self._too_long = False
        self._position = 0
        self._lines = self._skipped = 0
        self._missing = 0

    def tally(self) -> Offsets:
        return np.array([self._lines, 0, self._skipped, 0])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """Ticks are the ``t`` of JSON lines, modulo 2**32; damaged lines are missing rows."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        start = self._position - len(self._rest)
        self._position += len(chunk)
        values, ticks, starts, missing = [], [], [], []
        for line in lines:
            # Also a line that is here all at once: where reads end changes nothing.
            too_long = self._too_long or len(line) > LONGEST_LINE
            row = self._row(line) if self._begun and not too_long else None
            if row is not None:
                values.append(row)
                tick = _JSON_TICK.search(line)
                ticks.append(int(tick[1]) % TICKS if tick else -1)
                starts.append(start)
                missing.append(self._missing)
                self._missing = 0
            elif line.strip() or too_long:
                self._skipped += len(line)
                self._missing += self._begun
            self._begun, self._too_long = True, False
            start += len(line) + 1
        if self._too_long or len(rest) > LONGEST_LINE:
            self._skipped += len(rest)
            self._too_long, rest = True, b""
        self._rest = rest
        self._lines += len(values)
        left_ns = sent_ns(arrival_ns, self._position - np.array(starts, np.int64), self._baud)
        return Rows(
            np.array(values, np.int32).reshape(-1, self._count),
            np.array(ticks, np.int64),
            left_ns,
            np.array(missing, np.int64),
        )

    def _row(self, line: bytes) -> list[int] | None:
        """The fields of a line, or None."""
        if json := _JSON.fullmatch(line.strip()):
            fields = json[1].split(b",")
        elif b":" in line or b"=" in line:
            fields = _LABELLED.findall(line)
        else:
            fields = line.split(b",")
        if len(fields) != self._count:
            return None
        row = []
        for field in fields:
            if _NUMBER.fullmatch(field):
                row.append(min(round(float(field) * self._steps), 2**31 - 1))
            elif _NO_ECHO.fullmatch(field):
                row.append(NO_VALUE)
            else:
                return None
        return row if self._count > 1 or line.strip() else None
