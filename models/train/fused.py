"""A network over several sensors: each has layers of its own, side by side with the others', and the readout hears all.

``FusedSnn`` is trained with modality dropout (Neverova et al., ModDrop, 2015): now and then all spikes of a sensor are
missing, as they are when it is unplugged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.train.conv import ConvLayer, ConvSpec, settle_layers
from models.train.lif import LayerSpec, QuantLayer, Snn

Shape = int | tuple[int, int, int]
"""Of a sensor's features or neurons: how many, or channels, rows and columns."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One sensor: its features, and the layers that are behind them."""

    name: str
    shape: Shape
    layers: tuple[LayerSpec | ConvSpec, ...]


class FusedSnn(Snn):
    """Branches side by side and an integrator behind all.

    Input (T, B, features) float 0/1: those of each branch, in order; output (B, classes) logits.
    """

    def __init__(self, branches: Sequence[Branch], out: LayerSpec, steps: int, gain: float, dropout: float) -> None:
        """``steps``: of a window; the readout goes on so long, with what ends sooner too.

        Raises ValueError for branches of unequal length, or not in the order of their names, as NIR has them.
        """
        made = [_layers(branch, gain) for branch in branches]
        names = [branch.name for branch in branches]
        if names != sorted(set(names)):
            raise ValueError(f"the branches {names} are not in the order of their names")
        if len({len(layers) for layers in made}) != 1:
            raise ValueError(f"the branches {names} have not as many layers as each other")
        super().__init__(sum(layers[-1].spec.neurons for layers in made), [], out, gain, dropout)
        self.branches = dict(zip(names, made, strict=True))
        self.steps = steps
        self.sizes = [_size(branch.shape) for branch in branches]
        self.hidden = nn.ModuleList([layer for stage in zip(*made, strict=True) for layer in stage])

    def input_names(self) -> list[str]:
        return list(self.branches)

    def stages(self) -> list[list[tuple[str, QuantLayer]]]:
        named = [[(f"{name}{i}", layer) for i, layer in enumerate(of)] for name, of in self.branches.items()]
        return [*map(list, zip(*named, strict=True)), [("readout", self.out)]]

    def spikes(self, x: torch.Tensor) -> torch.Tensor:
        """As of ``Snn``, with dropout behind the last layers only; rates are of sensors that are there."""
        self.rates = []
        heard = [
            self._along(layers, part)
            for layers, part in zip(self.branches.values(), x.split(self.sizes, dim=2), strict=True)
        ]
        x = torch.cat(heard, dim=2)
        x = nn.functional.pad(x, (0, 0, 0, 0, 0, max(0, self.steps - len(x))))
        if self.training and self.dropout:
            x = x * (torch.rand_like(x[0]) > self.dropout) / (1 - self.dropout)
        return x

    def _along(self, layers: list[QuantLayer], x: torch.Tensor) -> torch.Tensor:
        if not bool(x.any()):  # a sensor that is missing from the whole batch: nothing spikes
            return x.new_zeros(*x.shape[:2], layers[-1].spec.neurons)
        for layer in layers:
            x = layer(x)
            self.rates.append(x.mean())
        return x


def _size(shape: Shape) -> int:
    return shape if isinstance(shape, int) else math.prod(shape)


def _layers(branch: Branch, gain: float) -> list[QuantLayer]:
    made: list[QuantLayer] = []
    shape = branch.shape
    for spec in branch.layers:
        if isinstance(spec, LayerSpec):
            made.append(QuantLayer(_size(shape), spec, spiking=True, gain=gain))
            shape = spec.neurons
        elif isinstance(shape, int):
            raise ValueError(f"a convolution over {shape} neurons without rows and columns")
        else:
            layer = ConvLayer(shape, spec, gain)
            made.append(layer)
            shape = layer.conv.out_shape(tuple(layer.w_in.shape))
    return made


def settle(net: FusedSnn, inputs: Sequence[torch.Tensor]) -> None:
    """Scale the weights of each branch's layers so that they begin at ``START_RATE`` on its part of ``inputs``."""
    for layers, x in zip(net.branches.values(), inputs, strict=True):
        settle_layers(layers, x)
