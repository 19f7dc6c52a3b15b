"""Sensors that answer questions: the next row of a table for each."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy.typing as npt

from hil.emulators.serial_port import RowsEmulator

IDLE_HZ = 10
KEPT_BYTES = 64


class PolledEmulator(RowsEmulator):
    """Answers at once, or not at all while silent. Faults change answers, one for each."""

    listens = True

    def __init__(self, rows: npt.NDArray[Any], link: Path, baud: int) -> None:
        super().__init__(rows, link, IDLE_HZ, baud, 1)
        self.answered = 0
        """Rows given so far; row k of the table, modulo its length, was the k-th answer."""
        self._heard = b""

    @abstractmethod
    def understand(self, heard: bytes) -> tuple[bytes, int]:
        """The answer to what was heard (b"" for none), and how many bytes of it have been dealt with."""

    def next_row(self) -> npt.NDArray[Any]:
        """Takes the next row of the table."""
        self.answered += 1
        return self.row(self.answered - 1)

    def encode(self, first: int, count: int) -> list[bytes]:
        return []

    def answer(self, request: bytes) -> bytes:
        self._heard = (self._heard + request)[-KEPT_BYTES:]
        answers = []
        while self._heard:
            answer, used = self.understand(self._heard)
            if not used:
                break
            self._heard = self._heard[used:]
            if answer:
                answers.append(self._faults.popleft()(answer) if self._faults else answer)
        return b"".join(answers)
