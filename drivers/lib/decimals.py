"""Lines of decimal numbers to arrays."""

import re

import numpy as np
import numpy.typing as npt

_NUMBER = rb" *[+-]?(?:\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})(?:[eE][+-]?\d{1,2})? *"


class DecimalLines:
    """Lines of a fixed count of decimal numbers with commas between them."""

    def __init__(self, fields: int) -> None:
        self.fields = fields
        self._pattern = re.compile(_NUMBER + b"".join([b"," + _NUMBER] * (fields - 1)))

    def parse(self, lines: list[bytes]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """(n, fields) numbers and (n,) which lines are such a line; the other lines' numbers are 0."""
        good = np.array([self._pattern.fullmatch(line) is not None for line in lines], np.bool_)
        numbers = np.zeros((len(lines), self.fields))
        if good.any():
            texts = b",".join(line for line, ok in zip(lines, good.tolist(), strict=True) if ok).split(b",")
            numbers[good] = np.array(texts).astype(np.float64).reshape(-1, self.fields)
        return numbers, good
