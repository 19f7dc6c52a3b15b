"""The memory that the agent and the Lava sidecar share: what stands where. Both sides import this file.

Standard library and numpy 1.x or 2.x only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_STEPS = 256
"""Steps of one request; a longer raster takes several."""
MAX_BYTES = 64 << 20
_ALIGN = 8


@dataclass(frozen=True, slots=True)
class Population:
    """One layer: the state before the first step, then everything that it did in each step."""

    start_u: npt.NDArray[np.int32]
    start_v: npt.NDArray[np.int32]
    start_s: npt.NDArray[np.uint8]
    u: npt.NDArray[np.int32]
    """(steps, neurons), as ``v`` and ``s``."""
    v: npt.NDArray[np.int32]
    s: npt.NDArray[np.uint8]
    overflow: npt.NDArray[np.int64]
    """(1,): not 0 once a synaptic current has left the 24 bits that Loihi has for it."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Views of one shared memory."""

    clock: npt.NDArray[np.int64]
    """(2,): Lava's time step before the request, steps of the request."""
    raster: npt.NDArray[np.uint8]
    """(steps, features)."""
    populations: tuple[Population, ...]


def _shapes(features: int, neurons: Sequence[int], steps: int) -> list[tuple[tuple[int, ...], "np.dtype[Any]"]]:
    shapes: list[tuple[tuple[int, ...], np.dtype[Any]]] = [
        ((2,), np.dtype(np.int64)),
        ((steps, features), np.dtype(np.uint8)),
    ]
    for n in neurons:
        for lead in ((), (steps,)):
            shapes += [((*lead, n), np.dtype(kind)) for kind in (np.int32, np.int32, np.uint8)]
        shapes.append(((1,), np.dtype(np.int64)))
    return shapes


def _size(shape: tuple[int, ...], dtype: "np.dtype[Any]") -> int:
    return -(-math.prod(shape) * dtype.itemsize // _ALIGN) * _ALIGN


def steps_of(features: int, neurons: Sequence[int]) -> int:
    """How many steps one request can have, so that the memory stays within bounds."""
    return max(1, min(MAX_STEPS, MAX_BYTES // (features + 9 * sum(neurons))))


def bytes_of(features: int, neurons: Sequence[int], steps: int) -> int:
    """Size of the memory for ``Shared``."""
    return sum(_size(*each) for each in _shapes(features, neurons, steps))


def views(buffer: memoryview, features: int, neurons: Sequence[int], steps: int) -> Shared:
    """Lay ``Shared`` over ``buffer``, which has at least ``bytes_of`` bytes."""
    arrays: list[npt.NDArray[Any]] = []
    at = 0
    for shape, dtype in _shapes(features, neurons, steps):
        arrays.append(np.ndarray(shape, dtype, buffer, at))
        at += _size(shape, dtype)
    populations = (Population(*arrays[i : i + 7]) for i in range(2, len(arrays), 7))
    return Shared(arrays[0], arrays[1], tuple(populations))
