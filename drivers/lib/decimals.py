"""Lines of decimal numbers to arrays."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.lib.framing import U8

_NUMBER = rb" *[+-]?(?:\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})(?:[eE][+-]?\d{1,2})? *"
_SHAPES = np.arange(256, dtype=np.uint8)
_SHAPES[np.frombuffer(b"123456789", np.uint8)] = ord("0")
_SHAPES[ord("-")] = ord("+")
_SHAPES.flags.writeable = False
# Lines whose bytes have the same shapes are both lines of numbers or both not.
MAX_EXACT_DIGITS = 15
"""An integer of so many digits, divided by a power of ten, is rounded once: like the decimal number itself."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the digits are in lines of numbers of one shape."""

    shape: U8
    weights: npt.NDArray[np.float64]
    """(width, fields): what a digit in each place is worth in each field, its decimal point left out."""
    per_one: npt.NDArray[np.float64]
    """(fields,) 10 ** digits behind the decimal point."""
    sign_at: npt.NDArray[np.intp]
    """(fields,) where each number begins."""

    def numbers(self, table: U8) -> npt.NDArray[np.float64]:
        whole: npt.NDArray[np.float64] = (table - np.uint8(ord("0"))).astype(np.float64) @ self.weights
        return np.where(table[:, self.sign_at] == ord("-"), -whole, whole) / self.per_one


class DecimalLines:
    """Lines of a fixed count of decimal numbers with commas between them."""

    def __init__(self, fields: int) -> None:
        self.fields = fields
        self._pattern = re.compile(_NUMBER + b"".join([b"," + _NUMBER] * (fields - 1)))
        self._layout: _Layout | None = None

    def parse(self, lines: list[bytes]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """(n, fields) numbers and (n,) which lines are such a line; the other lines' numbers are 0."""
        good = np.array([self._pattern.fullmatch(line) is not None for line in lines], np.bool_)
        numbers = np.zeros((len(lines), self.fields))
        if good.any():
            texts = b",".join(line for line, ok in zip(lines, good.tolist(), strict=True) if ok).split(b",")
            numbers[good] = np.array(texts).astype(np.float64).reshape(-1, self.fields)
        return numbers, good

    def parse_table(self, table: U8) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """The same for n >= 1 lines of one width, (n, width) bytes; fastest where digits stand below digits."""
        shapes = _SHAPES.take(table)
        if self._layout is None or not np.array_equal(self._layout.shape, shapes[0]):
            self._layout = self._layout_of(shapes[0])
        if self._layout is None:
            return self.parse([line.tobytes() for line in table])
        good = (shapes == self._layout.shape).all(axis=1)
        numbers = np.zeros((len(table), self.fields))
        numbers[good] = self._layout.numbers(table[good])
        others = np.flatnonzero(~good)
        if len(others):
            numbers[others], good[others] = self.parse([line.tobytes() for line in table[others]])
        return numbers, good

    def _layout_of(self, shape: U8) -> _Layout | None:
        """None for what is no line of numbers, or has exponents or more digits than are exact."""
        text = shape.tobytes()
        if not self._pattern.fullmatch(text) or b"e" in text.lower():
            return None
        weights, per_one = np.zeros((len(text), self.fields)), np.ones(self.fields)
        sign_at = np.zeros(self.fields, np.intp)
        begin = 0
        for field, number in enumerate(text.split(b",")):
            places = np.flatnonzero(shape[begin : begin + len(number)] == ord("0"))
            if len(places) > MAX_EXACT_DIGITS:
                return None
            weights[begin + places, field] = 10 ** np.arange(len(places))[::-1]
            per_one[field] = 10 ** len(number.partition(b".")[2].rstrip())
            sign_at[field] = begin + len(number) - len(number.lstrip())
            begin += len(number) + 1
        return _Layout(shape.copy(), weights, per_one, sign_at)
