"""Quantisation-aware convolutional LIF layers in front of those of ``models.train.lif``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.convolution import ConvShape
from models.train.lif import DECAY_ONE, LayerSpec, Lif, QuantLayer, Snn, on_grid

START_RATE = 0.1
"""Spikes per neuron and step with which training begins, in every layer."""
SETTLING_TURNS = 20
SETTLED = 1.3
"""Within this factor of it."""


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """``k_u`` in 0..4095, ``k_v`` in 1..4095 of 4096; ``limit`` bounds the weights (the threshold is 1)."""

    channels: int
    kernel: int
    stride: int | tuple[int, int]
    """Of rows and columns, or of each."""
    padding: int
    k_u: int
    k_v: int
    limit: float


class ConvLayer(QuantLayer):
    """One population whose weights are a kernel; neurons in the order (channel, row, column)."""

    def __init__(self, in_shape: tuple[int, int, int], spec: ConvSpec, gain: float) -> None:
        kernel = (spec.channels, in_shape[0], spec.kernel, spec.kernel)
        stride = spec.stride if isinstance(spec.stride, tuple) else (spec.stride, spec.stride)
        shape = ConvShape(in_shape, stride, (spec.padding, spec.padding))
        shape.check(kernel, "a layer to train")
        neurons = math.prod(shape.out_shape(kernel))
        super().__init__(1, LayerSpec(neurons, spec.k_u, spec.k_v, spec.limit), spiking=True, gain=gain)
        self.conv = shape
        self.w_in = nn.Parameter(torch.randn(kernel) * gain / math.prod(kernel[1:]) ** 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(T, B, inputs) to spikes (T, B, neurons)."""
        scale = self.scale()
        images = x.reshape(-1, *self.conv.in_shape)
        current = nn.functional.conv2d(
            images, on_grid(self.w_in, scale), stride=self.conv.stride, padding=self.conv.padding
        )
        v_th = torch.round(2 * scale) / (2 * scale)
        k_u, k_v = self.spec.k_u / DECAY_ONE, self.spec.k_v / DECAY_ONE
        spikes: torch.Tensor = Lif.apply(current.reshape(*x.shape[:2], -1), None, k_u, k_v, v_th)
        return spikes


class ConvSnn(Snn):
    """Convolutions, spiking layers and an integrator. Input (T, B, features) float 0/1, output (B, classes) logits."""

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        convolutions: list[ConvSpec],
        hidden: list[LayerSpec],
        out: LayerSpec,
        gain: float,
        dropout: float,
    ) -> None:
        """``in_shape``: channels, height and width of the input, whose features are in that order."""
        layers: list[ConvLayer] = []
        for spec in convolutions:
            layers.append(ConvLayer(in_shape, spec, gain))
            in_shape = layers[-1].conv.out_shape(tuple(layers[-1].w_in.shape))
        super().__init__(math.prod(in_shape), hidden, out, gain, dropout)
        self.hidden = nn.ModuleList([*layers, *self.hidden])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rates = []
        for i, layer in enumerate(self.hidden):
            x = layer(x)
            self.rates.append(x.mean())
            # Not behind the first layer, where neighbours say the same.
            if self.training and self.dropout and i:
                x = x * (torch.rand_like(x[0]) > self.dropout) / (1 - self.dropout)
        return self.out(x) / len(x) * torch.exp(self.log_gain)


def settle(net: Snn, x: torch.Tensor) -> None:
    """Scale the weights of each spiking layer so that it begins at ``START_RATE`` on the input ``x``."""
    settle_layers(net.layers()[:-1], x)


def settle_layers(layers: Sequence[QuantLayer], x: torch.Tensor) -> None:
    """``settle`` of some layers, one behind the other."""
    with torch.no_grad():
        for layer in layers:
            for _ in range(SETTLING_TURNS):
                rate = float(layer(x).mean())
                if START_RATE / SETTLED < rate < START_RATE * SETTLED:
                    break
                layer.w_in.mul_(1.25 if rate < START_RATE else 0.8)
            x = layer(x)
