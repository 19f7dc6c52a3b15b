"""A serial sensor that answers questions: asked on a fixed grid of the host's clock, one question at a time."""

import time
from abc import abstractmethod
from typing import Protocol, TypeVar

import numpy as np

from drivers.lib.clock import BITS_PER_BYTE_8N1, NS_PER_S
from drivers.lib.framing import Offsets
from drivers.lib.ranging import RangeParser
from drivers.lib.serial_sensor import Parser, SerialConfig, SerialSensor
from drivers.lib.timeline import Rows, Timeline

ANSWER_NS = 100_000_000
"""So long a sensor may take from a question to its answer, without the time of both on the line."""
SLOTS = 1 << 16
"""Places on the grid are counted modulo this."""


class Answers(Parser, Protocol):
    """A parser that also asks."""

    @property
    def asks(self) -> bool:
        """False for a sensor that is set to talk unasked."""

    @property
    def waiting(self) -> bool:
        """A question was asked and its answer is not complete."""

    def ask(self, slot: int, now_ns: int) -> bytes:
        """The question of place ``slot`` on the grid, which is sent at ``now_ns``; from now on it waits."""

    def ask_on(self) -> bytes:
        """A further question of the same place, sent at once, or b"" for none."""

    def give_up(self) -> int:
        """No answer came in time; returns how many bytes of one are given up."""


P = TypeVar("P", bound=SerialConfig)


class PolledSensor(SerialSensor[P]):
    """Base of the drivers. A place on the grid that gave no row is a lost row."""

    _parser: Answers

    @abstractmethod
    def new_parser(self) -> Answers:
        """A parser for a new conversation."""

    def _new_timeline(self) -> Timeline:
        return Timeline(self.cfg.rate_hz, tick_hz=self.cfg.rate_hz, modulus=SLOTS)

    def open(self) -> None:
        super().open()
        self._period_ns = round(NS_PER_S / self.cfg.rate_hz)
        self._start_ns = time.monotonic_ns()
        self._next_slot = 0
        self._give_up_ns = 0

    def _gather(self, deadline_ns: int) -> tuple[bytes, int]:
        """Asks when it is time to, and reads what there is of the answer before ``deadline_ns``."""
        if not self._parser.asks:
            return super()._gather(deadline_ns)
        if not self._parser.waiting and not self._ask(deadline_ns):
            return b"", time.monotonic_ns()
        end_ns = min(deadline_ns, self._give_up_ns)
        answer, arrival_ns = self._link.read((end_ns - time.monotonic_ns()) / NS_PER_S)
        if not answer and arrival_ns >= self._give_up_ns:
            self.counters.resync_bytes += self._parser.give_up()
        return answer, arrival_ns

    def _ask(self, deadline_ns: int) -> bool:
        """Whether a question went out; waits for the next place on the grid if that is before ``deadline_ns``."""
        question = self._parser.ask_on()
        now_ns = time.monotonic_ns()
        if not question:
            due_ns = self._start_ns + self._next_slot * self._period_ns
            # What comes unasked is a late answer; taken for the next one it would shift all that follow.
            while stray := self._link.read((min(due_ns, deadline_ns) - now_ns) / NS_PER_S)[0]:
                self.counters.resync_bytes += len(stray)
                now_ns = time.monotonic_ns()
                if now_ns >= max(due_ns, deadline_ns):
                    break
            now_ns = time.monotonic_ns()
            if now_ns < due_ns:
                return False
            slot = (now_ns - self._start_ns) // self._period_ns
            self._next_slot = slot + 1
            question = self._parser.ask(slot % SLOTS, now_ns)
        self._link.write(question)
        line_bytes = len(question) + self._parser.row_bytes
        self._give_up_ns = now_ns + ANSWER_NS + line_bytes * BITS_PER_BYTE_8N1 * NS_PER_S // self.cfg.baud
        return True


class FramedAnswers:
    """Answers that are the frames of ``frames``; a row is captured when its question is asked."""

    def __init__(self, frames: RangeParser, question: bytes) -> None:
        """``question``: b"" for a sensor that talks unasked."""
        self._frames = frames
        self._question = question
        self._unasked = 0
        self._slot: int | None = None
        self._asked_ns = 0

    @property
    def asks(self) -> bool:
        return bool(self._question)

    @property
    def waiting(self) -> bool:
        return self._slot is not None

    @property
    def row_bytes(self) -> int:
        return self._frames.row_bytes

    def tally(self) -> Offsets:
        """Frames that nobody asked for count as skipped bytes."""
        tally: Offsets = self._frames.tally() + np.array([0, 0, self._unasked * self.row_bytes, 0])
        return tally

    def ask(self, slot: int, now_ns: int) -> bytes:
        self._slot, self._asked_ns = slot, now_ns
        return self._question

    def ask_on(self) -> bytes:
        return b""

    def give_up(self) -> int:
        """The scanner keeps what may yet be the beginning of a frame."""
        self._slot = None
        return 0

    def feed(self, chunk: bytes, arrival_ns: int) -> Rows:
        """At most one row for a question; what else comes is dropped."""
        rows = self._frames.feed(chunk, arrival_ns)
        if not self.asks:
            return rows
        slot, count = self._slot, 1 if self._slot is not None and len(rows.values) else 0
        self._unasked += len(rows.values) - count
        ticks, left_ns = rows.ticks[:count], rows.left_ns[:count]
        if slot is not None and count:
            ticks[:], left_ns[:] = slot, self._asked_ns
            self._slot = None
        return Rows(rows.values[:count], ticks, left_ns, rows.missing[:count])
