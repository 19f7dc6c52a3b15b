"""The operators of a step graph: what each makes of its operands. TFLite's codes and kinds of options are its schema's.

A rule takes the operands, the options' table (None if there is none) and gives shape and type of each result, or None
if the operator cannot be used like that.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.compile.flatbuffer import Table

FLOAT, INT, BOOL, INT8 = (np.dtype(kind) for kind in (np.float32, np.int32, np.bool_, np.int8))
TYPES = {0: FLOAT, 2: INT, 6: BOOL, 9: INT8}
_VALID_PADDING = 1
"""Padding ``VALID`` of the schema: none."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """As a file declares it; ``value`` of a constant."""

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    value: npt.NDArray[Any] | None
    quantised: bool


Results = list[tuple[Shape, "np.dtype[Any] | None"]]
"""Type None: any, as the result says."""
Rule = Callable[[list[Tensor], Table | None], Results | None]


def _number(options: Table | None, field: int, kind: str = "<i", default: int = 0) -> int:
    return default if options is None else options.number(field, kind, default)


def _cellwise(operands: list[Tensor], _: Table | None) -> Results | None:
    a, b = operands
    fits = a.dtype == b.dtype and b.shape in (a.shape, (1,)) and a.dtype in (INT, FLOAT)
    return [(a.shape, a.dtype)] if fits else None


def _greater(operands: list[Tensor], options: Table | None) -> Results | None:
    return [(operands[0].shape, BOOL)] if _cellwise(operands, options) else None


def _div(operands: list[Tensor], options: Table | None) -> Results | None:
    divisor = operands[1].value
    return _cellwise(operands, options) if divisor is not None and divisor.min() > 0 else None


def _select(operands: list[Tensor], _: Table | None) -> Results | None:
    which, a, b = operands
    fits = which.shape == a.shape == b.shape and which.dtype == BOOL and a.dtype == b.dtype == INT
    return [(a.shape, INT)] if fits else None


def _dequantize(operands: list[Tensor], _: Table | None) -> Results | None:
    (a,) = operands
    return [(a.shape, FLOAT)] if a.value is not None and a.dtype == INT8 and a.quantised else None


def _fully_connected(operands: list[Tensor], _: Table | None) -> Results | None:
    x, weights = operands
    fits = len(weights.shape) == 2 and x.shape == (1, weights.shape[1]) and x.dtype == weights.dtype == FLOAT
    return [((1, weights.shape[0]), FLOAT)] if fits else None


def _conv_2d(operands: list[Tensor], options: Table | None) -> Results | None:
    x, kernel, bias = operands
    strides = _number(options, 2), _number(options, 1)
    plain = [_number(options, 0, "<b"), _number(options, 4, "<i", 1), _number(options, 5, "<i", 1)]
    if len(x.shape) != 4 or len(kernel.shape) != 4 or min(strides) < 1 or plain != [_VALID_PADDING, 1, 1]:
        return None
    free = [size - reach for size, reach in zip(x.shape[1:3], kernel.shape[1:3], strict=True)]
    fits = x.shape[3] == kernel.shape[3] and min(free) >= 0 and bias.shape == kernel.shape[:1]
    if not fits or {x.dtype, kernel.dtype, bias.dtype} != {FLOAT}:
        return None
    rows, columns = (room // stride + 1 for room, stride in zip(free, strides, strict=True))
    return [((x.shape[0], rows, columns, kernel.shape[0]), FLOAT)]


def _pad(operands: list[Tensor], _: Table | None) -> Results | None:
    x, margins = operands
    if margins.value is None or margins.dtype != INT or margins.shape != (len(x.shape), 2) or margins.value.min() < 0:
        return None
    return [(tuple(n + sum(m) for n, m in zip(x.shape, margins.value.tolist(), strict=True)), x.dtype)]


def _reshape(operands: list[Tensor], _: Table | None) -> Results | None:
    x, shape = operands
    if shape.value is None or shape.dtype != INT or len(shape.shape) != 1:
        return None
    wanted = tuple(shape.value.tolist())
    return [(wanted, x.dtype)] if min(wanted) > 0 and math.prod(wanted) == math.prod(x.shape) else None


def _gather(operands: list[Tensor], options: Table | None) -> Results | None:
    x, places = operands
    if places.value is None or len(x.shape) != 2 or (_number(options, 0), _number(options, 1)) != (1, 0):
        return None
    fits = len(places.shape) == 1 and places.dtype == INT and places.value.min() >= 0
    fits = fits and places.value.max() < x.shape[1] and x.dtype in (INT, FLOAT)
    return [((x.shape[0], *places.shape), x.dtype)] if fits else None


def _split_v(operands: list[Tensor], options: Table | None) -> Results | None:
    x, sizes, axis = operands
    if sizes.value is None or axis.value is None or len(x.shape) != 2 or {sizes.dtype, axis.dtype} != {INT}:
        return None
    fits = len(sizes.shape) == 1 and axis.value.tolist() == [1] and sizes.value.min() > 0
    fits = fits and int(sizes.value.sum(dtype=np.int64)) == x.shape[1] and _number(options, 0) == len(sizes.value)
    return [((x.shape[0], n), x.dtype) for n in sizes.value.tolist()] if fits else None


def _concatenation(operands: list[Tensor], options: Table | None) -> Results | None:
    dtype = operands[0].dtype
    fits = all(len(a.shape) == 2 and a.shape[0] == 1 and a.dtype == dtype for a in operands)
    fits = fits and _number(options, 0) == 1 and dtype in (INT, FLOAT)
    return [((1, sum(a.shape[1] for a in operands)), dtype)] if fits else None


def _cast(operands: list[Tensor], _: Table | None) -> Results | None:
    return [(operands[0].shape, None)] if operands[0].dtype in (INT, FLOAT, BOOL) else None


def _differ(made: "tuple[Shape, np.dtype[Any] | None]", found: tuple[Shape, np.dtype[Any]]) -> bool:
    return made[0] != found[0] or made[1] not in {None, found[1]}


@dataclass(frozen=True, slots=True)
class Operator:
    """One kind of operator."""

    name: str
    options: int
    """Kind of the options' table; 0: none."""
    operands: int
    """How many; 0: one or more."""
    rule: Rule

    def check(self, operands: list[Tensor], results: list[Tensor], options: Table | None) -> None:
        """Raise ValueError unless it makes such ``results``."""
        right = len(operands) == (self.operands or max(1, len(operands)))
        made = self.rule(operands, options) if right else None
        found = [(result.shape, result.dtype) for result in results]
        if made is None or len(made) != len(found) or any(map(_differ, made, found)):
            takes, gives = (
                ", ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in tensors) or "nothing"
                for tensors in (operands, results)
            )
            raise ValueError(f"{self.name} of {takes} cannot give {gives}")


OPERATORS = {
    0: Operator("ADD", 11, 2, _cellwise),
    2: Operator("CONCATENATION", 10, 0, _concatenation),
    3: Operator("CONV_2D", 1, 3, _conv_2d),
    6: Operator("DEQUANTIZE", 38, 1, _dequantize),
    9: Operator("FULLY_CONNECTED", 8, 2, _fully_connected),
    18: Operator("MUL", 21, 2, _cellwise),
    22: Operator("RESHAPE", 17, 2, _reshape),
    34: Operator("PAD", 22, 2, _pad),
    36: Operator("GATHER", 23, 2, _gather),
    41: Operator("SUB", 28, 2, _cellwise),
    42: Operator("DIV", 29, 2, _div),
    53: Operator("CAST", 37, 1, _cast),
    55: Operator("MAXIMUM", 39, 2, _cellwise),
    57: Operator("MINIMUM", 39, 2, _cellwise),
    61: Operator("GREATER", 44, 2, _greater),
    64: Operator("SELECT", 47, 3, _select),
    102: Operator("SPLIT_V", 79, 3, _split_v),
}
