"""Samples that microcontrollers write to a serial port. There is no standard; these are the three kinds that are seen.

``raw``: i16 little-endian without any mark. ``marked``: ``0A HI LO``, big-endian behind a newline. ``decimal``: a
number per line.
"""

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.lib.clock import sent_ns
from drivers.lib.framing import Offsets
from drivers.lib.timeline import Rows

BLOCK_SAMPLES = 64
BLOCK_BYTES = 2 * BLOCK_SAMPLES
CLEARLY = 8
"""Read from the wrong byte, sound has this many times the power in its first differences, or it is noise anyway."""
LOUD_STEP = 4096
"""Root mean square step from sample to sample above which sound is not undecided because it is quiet."""
RECENT_BLOCKS = 32
DOUBT = 4.0
MOST_EVIDENCE = 1.4
"""Natural logarithms of ratios: how much the recent blocks together must say, and one of them may, where every other
byte is zero."""
MARK = 0x0A
MARKED_BYTES = 3
CONFIRMED_MARKS = 16
LONGEST_LINE = 64
_DECIMAL = re.compile(rb"^([+-]?\d{1,9})\r?$", re.MULTILINE)
LEAST, MOST = -32768, 32767


def _rows(values: npt.NDArray[Any], ends: Offsets, position: int, arrival_ns: int, missing: Offsets, baud: int) -> Rows:
    left_ns = sent_ns(arrival_ns, position - ends, baud)
    return Rows(values.astype(np.int16)[:, None], np.full(len(values), -1, np.int64), left_ns, missing)


class RawStream:
    """Which of two bytes begins a sample is told by the variance of the first differences, block by block.

    Where that changes a byte was lost: the block in which it happened is given up. Held back is one block, 4 ms.
    Samples of 8 bits, in the upper byte or as 0 to 255, have a zero in every other byte: the wrong byte gives a quieter
    sound then, which jumps where the right one crosses its middle. Over several blocks, that tells.
    """

    row_bytes = 2

    def __init__(self, baud: int) -> None:
        self.noisy_blocks = 0
        """Blocks in a row that are loud and make no sense from either byte."""
        self._baud = baud
        self._rest = np.zeros(0, np.uint8)
        self._position = self._blocks = self._skipped = 0
        self._phase = 0
        self._missing = 0
        self._evidence = np.zeros(RECENT_BLOCKS - 1)
        self._sure = False

    def tally(self) -> Offsets:
        return np.array([self._blocks, 0, self._skipped, 0])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        data = np.concatenate([self._rest, np.frombuffer(chunk, np.uint8)])
        self._position += len(chunk)
        count = max(0, len(data) - 1) // BLOCK_BYTES
        size = count * BLOCK_BYTES
        even, odd = (data[at : at + size].copy().view("<i2").reshape(count, BLOCK_SAMPLES) for at in (0, 1))
        phase = self._judge(even, odd)
        changed = phase[1:] != phase[:-1]
        # The last block waits for its successor, which may show that a byte was lost in it.
        done = max(0, count - 1)
        lost = changed[:done]
        kept = np.flatnonzero(~lost)
        values = np.where(phase[:done, None] == 1, odd[:done], even[:done])[kept].ravel()
        missing = np.zeros((len(kept), BLOCK_SAMPLES), np.int64)
        dropped = np.cumsum(lost)[kept] + self._missing
        missing[:, 0] = np.diff(dropped, prepend=0) * BLOCK_SAMPLES
        self._missing = self._missing + int(lost.sum()) - (int(dropped[-1]) if len(kept) else 0)
        self._blocks += len(kept)
        self._skipped += int(lost.sum()) * BLOCK_BYTES
        origin = self._position - len(data)
        first = origin + kept * BLOCK_BYTES + phase[kept]
        ends = (first[:, None] + 2 + 2 * np.arange(BLOCK_SAMPLES)).ravel()
        self._rest = data[done * BLOCK_BYTES :].copy()
        return _rows(values, ends, self._position, arrival_ns, missing.ravel(), self._baud)

    def _judge(self, even: npt.NDArray[np.int16], odd: npt.NDArray[np.int16]) -> npt.NDArray[np.int64]:
        """(count,) 0 or 1: on which byte the samples of each block begin; undecided blocks follow their predecessor."""
        power = np.stack([(np.diff(block.astype(np.float64), axis=1) ** 2).mean(axis=1) for block in (even, odd)])
        vote = np.where(power[1] * CLEARLY < power[0], 1, np.where(power[0] * CLEARLY < power[1], 0, -1))
        noisy = (vote < 0) & (power.min(axis=0) > LOUD_STEP**2)
        if len(vote):
            self._judge_halves(vote, power, even, odd)
        quiet = np.flatnonzero(~noisy)
        self.noisy_blocks = len(noisy) - 1 - int(quiet[-1]) if len(quiet) else self.noisy_blocks + len(noisy)
        source = np.maximum.accumulate(np.where(vote >= 0, np.arange(len(vote)), -1))
        phase: npt.NDArray[np.int64] = np.where(source >= 0, vote[source], self._phase)
        # The last block is judged again with the next bytes, from where the block before it left off.
        if len(phase) > 1:
            self._phase = int(phase[-2])
        return phase

    def _judge_halves(
        self,
        vote: npt.NDArray[np.int64],
        power: npt.NDArray[np.float64],
        even: npt.NDArray[np.int16],
        odd: npt.NDArray[np.int16],
    ) -> None:
        """Changes ``vote`` (1 or more) where every other byte of a block is zero: to what the steps of recent blocks
        say against their spread. Until these, or a block without zeros, have told, it stays."""
        zero = np.all(even.view(np.uint8).reshape(-1, BLOCK_SAMPLES, 2) == 0, axis=1)
        halves = np.any(zero, axis=1) & np.all(power > 0, axis=0)
        said = np.where(vote < 0, 0, 2 * vote - 1) * MOST_EVIDENCE
        sure = (vote >= 0) & ~halves
        evidence = np.concatenate([self._evidence, said])
        if halves.any():
            spread = np.stack([block[halves].var(axis=1, dtype=np.float64) for block in (even, odd)])
            rough = np.log(power[:, halves] / spread)
            evidence[RECENT_BLOCKS - 1 :][halves] = np.clip(rough[0] - rough[1], -MOST_EVIDENCE, MOST_EVIDENCE)
            recent = np.convolve(evidence, np.ones(RECENT_BLOCKS), "valid")
            sure = np.logical_or.accumulate(sure | (np.abs(recent) > DOUBT)) | self._sure
            told = halves & sure
            vote[told] = np.where(recent > DOUBT, 1, np.where(recent < -DOUBT, 0, -1))[told]
        if len(vote) > 1:
            self._evidence, self._sure = evidence[-RECENT_BLOCKS:-1], self._sure or bool(sure[:-1].any())


class MarkedStream:
    """Groups of three bytes; in step where 16 marks in a row lie three bytes apart. A group needs a mark behind it."""

    row_bytes = MARKED_BYTES

    def __init__(self, baud: int) -> None:
        self._baud = baud
        self._rest = np.zeros(0, np.uint8)
        self._position = self._groups = self._skipped = self._given_up = 0
        self._synced = self._begun = False

    def tally(self) -> Offsets:
        return np.array([self._groups, 0, self._skipped, 0])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        data = np.concatenate([self._rest, np.frombuffer(chunk, np.uint8)])
        self._position += len(chunk)
        taken = [np.zeros(0, np.int64)]
        missing = [np.zeros(0, np.int64)]
        mark = data == MARK
        entry = self._entries(mark)
        at = 0
        while True:
            if not self._synced:
                found = int(np.searchsorted(entry, at))
                to = int(entry[found]) if found < len(entry) else max(at, len(data) - CONFIRMED_MARKS * MARKED_BYTES)
                self._given_up += to - at
                self._synced, at = found < len(entry), to
            if not self._synced:
                break
            marks = mark[at::MARKED_BYTES]
            right = len(marks) if marks.all() else int(marks.argmin())
            # The group before a wrong mark, or before the end of the data, is not confirmed.
            starts = at + MARKED_BYTES * np.arange(max(0, right - 1))
            taken.append(starts)
            missing.append(self._missing(len(starts)))
            at += MARKED_BYTES * len(starts)
            if right == len(marks):
                break
            self._synced = False
            # Anywhere behind this mark: the group that it begins is the broken one.
            self._given_up += 1
            at += 1
        self._rest = data[at:].copy()
        starts = np.concatenate(taken)
        self._groups += len(starts)
        values = (data[starts + 1].astype(np.uint16) << 8 | data[starts + 2]).view(np.int16)
        ends = self._position - len(data) + starts + MARKED_BYTES
        return _rows(values, ends, self._position, arrival_ns, np.concatenate(missing), self._baud)

    def _entries(self, mark: npt.NDArray[np.bool_]) -> Offsets:
        """Where enough marks in a row begin."""
        count = len(mark) - (CONFIRMED_MARKS - 1) * MARKED_BYTES
        if count <= 0:
            return np.zeros(0, np.int64)
        run = np.ones(count, np.bool_)
        for index in range(CONFIRMED_MARKS):
            run &= mark[index * MARKED_BYTES : index * MARKED_BYTES + count]
        return np.flatnonzero(run)

    def _missing(self, count: int) -> Offsets:
        missing = np.zeros(count, np.int64)
        if count:
            # What was given up before the first group was no group of ours: the stream began in the middle of it.
            missing[0] = -(-self._given_up // MARKED_BYTES) if self._begun else 0
            self._skipped += self._given_up
            self._given_up, self._begun = 0, True
        return missing


class DecimalStream:
    """Lines with one number each; any other line is given up, and the first one, which may have been cut."""

    row_bytes = 5

    def __init__(self, baud: int) -> None:
        self._baud = baud
        self._rest = b""
        self._position = self._lines = self._skipped = self._out_of_range = 0
        self._begun = False
        self._missing = 0

    def tally(self) -> Offsets:
        return np.array([self._lines, 0, self._skipped, self._out_of_range])

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        text = self._rest + chunk
        self._position += len(chunk)
        origin = self._position - len(text)
        size = text.rfind(b"\n") + 1
        begin = 0
        if not self._begun and size:
            begin = text.index(b"\n") + 1
            self._begun = True
            self._skipped += begin
        whole = text[begin:size]
        found = list(_DECIMAL.finditer(whole))
        numbers = np.array([int(number[1]) for number in found], np.int64)
        ends = origin + begin + np.array([number.end() + 1 for number in found], np.int64)
        starts = origin + begin + np.array([number.start() for number in found], np.int64)
        # Between two numbers in a row there are no bytes; where there are, they were lines without one.
        between = starts - np.concatenate([[origin + begin], ends[:-1]]) if found else np.zeros(0, np.int64)
        missing = np.minimum(between, 1) + (np.arange(len(found)) == 0) * min(self._missing, 1)
        tail = origin + size - int(ends[-1]) if found else size - begin
        self._missing = tail if found else self._missing + tail
        self._skipped += int(between.sum()) + tail
        self._lines += len(found)
        self._rest = text[size:]
        if len(self._rest) > LONGEST_LINE:
            self._skipped += len(self._rest) - LONGEST_LINE
            self._rest = self._rest[-LONGEST_LINE:]
        self._out_of_range += int(np.count_nonzero((numbers < LEAST) | (numbers > MOST)))
        return _rows(np.clip(numbers, LEAST, MOST), ends, self._position, arrival_ns, missing, self._baud)
