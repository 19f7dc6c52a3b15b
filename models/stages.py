"""Which layer of a network hears what: layers behind each other, and layers side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Stages = tuple[tuple[int, ...], ...]
NOTHING: npt.NDArray[Any] = np.zeros(0, np.int32)


class Placed(Protocol):
    """A layer, as far as this matters here."""

    @property
    def inputs(self) -> int: ...

    @property
    def neurons(self) -> int: ...

    @property
    def beside(self) -> bool:
        """Does it stand beside the layer before it, in the same stage?"""


@dataclass(frozen=True, slots=True)
class Wire:
    """What a layer hears: the neurons of the layers ``sources``, or where there are none, ``cells`` of the raster."""

    cells: slice
    sources: tuple[int, ...]

    def of(self, raster: npt.NDArray[Any], outputs: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Its inputs (..., inputs), out of ``raster`` (..., features) and the ``outputs`` (..., neurons) of the layers
        so far."""
        if not self.sources:
            return raster[..., self.cells]
        heard = [outputs[j] for j in self.sources]
        return heard[0] if len(heard) == 1 else np.concatenate(heard, axis=-1)

    def take(self, raster: npt.NDArray[Any], outputs: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The same, and lets go of those outputs: no other layer hears them."""
        inputs = self.of(raster, outputs)
        for j in self.sources:
            outputs[j] = NOTHING
        return inputs


def stages(layers: Sequence[Placed]) -> Stages:
    """Indices of the layers of each stage."""
    firsts = [i for i, layer in enumerate(layers) if not (layer.beside and i)]
    return tuple(tuple(range(a, b)) for a, b in pairwise((*firsts, len(layers))))


def wires(layers: Sequence[Placed]) -> tuple[Wire, ...]:
    """Of each layer, where its inputs come from: a slice of its stage's input, which is all that the stage before has.

    For layers that ``models.network.check`` lets pass: a slice of neurons is whole layers.
    """
    found: list[Wire] = []
    before: tuple[int, ...] = ()
    for stage in stages(layers):
        starts = list(accumulate((layers[j].neurons for j in before), initial=0))
        at = 0
        for i in stage:
            end = at + layers[i].inputs
            sources = tuple(j for j, start in zip(before, starts, strict=False) if at <= start < end)
            found.append(Wire(slice(at, end), sources))
            at = end
        before = stage
    return tuple(found)
