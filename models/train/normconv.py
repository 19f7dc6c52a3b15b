"""Convolutional LIF layers with batch normalisation, folded into integer weights and biases before training ends.

Normalised layers learn faster and end better (Ioffe and Szegedy 2015). ``fold`` freezes their means and variances; from
then on the weights are those of the integer network: on the grid, with a bias for each channel.
"""

import math

import torch
from torch import nn

from models.train.conv import ConvLayer, ConvSpec
from models.train.lif import DECAY_ONE, LayerSpec, Lif, QuantLayer, Snn, on_grid

BIAS_PARTS = 2
"""Biases are whole halves of a weight unit: coarse enough to be Loihi's (13 bits times a power of two)."""


def rate(current: torch.Tensor, steps: int, k_v: float) -> torch.Tensor:
    """How often a neuron spikes in a step, of ``steps`` with this current and a threshold of 1: the line through the
    stairs, from the least current that it spikes with once, to that with which it always does."""
    least = 1 / sum(k_v**n for n in range(steps))
    half = 0.5 / steps
    return torch.clamp(half + (current - least) * ((1 - 2 * half) / (1 - least)), 0, 1)


class NormConvLayer(ConvLayer):
    """(T, B, inputs) to spikes (T, B, neurons)."""

    def __init__(self, in_shape: tuple[int, int, int], spec: ConvSpec) -> None:
        if spec.k_u:
            raise ValueError("a normalised convolution has no synaptic current between steps: k_u must be 0")
        super().__init__(in_shape, spec, gain=1.0)
        self.norm = nn.BatchNorm2d(spec.channels)
        self.graded = False
        self.folded = False

    def effective(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Kernel and bias (channels,) that do what the kernel and the frozen normalisation do."""
        norm = self.norm
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("a normalisation without running statistics cannot be folded")
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return self.w_in * factor[:, None, None, None], norm.bias - norm.running_mean * factor

    def scale(self) -> torch.Tensor:
        return ((1 << (self.spec.weight_bits - 1)) - 1) / self.effective()[0].detach().abs().max()

    def integers(self) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        if not self.folded:
            raise ValueError("no integers were trained yet: fold first")
        scale = self.scale()
        return torch.round(self.effective()[0].detach() * scale).to(torch.int8), None, round(float(2 * scale))

    def biases(self) -> torch.Tensor:
        scale = self.scale() * BIAS_PARTS
        return torch.round(self.effective()[1].detach() * scale).double() / BIAS_PARTS

    def clamp_(self) -> None:
        """Normalised weights have no outliers to speak of: ``limit`` is not needed."""

    def forward(self, x: torch.Tensor, steps: int = 1) -> torch.Tensor:
        """``steps``: show an ``x`` of one step so often. Spikes; graded, their mean over those steps, as one step."""
        images = x.reshape(-1, *self.conv.in_shape)
        stride, padding = self.conv.stride, self.conv.padding
        if self.folded:
            kernel, bias = self.effective()
            scale = self.scale()
            current = nn.functional.conv2d(
                images, on_grid(kernel, scale), on_grid(bias, scale * BIAS_PARTS), stride, padding
            )
            v_th = torch.round(2 * scale) / (2 * scale)
        else:
            current, v_th = self.norm(nn.functional.conv2d(images, self.w_in, None, stride, padding)), torch.ones(())
        current = current.reshape(*x.shape[:2], -1)
        if self.graded:
            return rate(current, steps, self.spec.k_v / DECAY_ONE)
        if len(x) < steps:
            current = current.expand(steps, -1, -1)
        spikes: torch.Tensor = Lif.apply(current, None, self.spec.k_u / DECAY_ONE, self.spec.k_v / DECAY_ONE, v_th)
        return spikes


class MeanReadout(QuantLayer):
    """An integrator of cells (channel, row, column) with one weight for all rows: what was there counts, not where."""

    def __init__(self, in_shape: tuple[int, int, int], spec: LayerSpec) -> None:
        channels, rows, columns = in_shape
        super().__init__(channels * columns, spec, spiking=False, gain=1 / rows)
        self.in_shape = in_shape

    @property
    def inputs(self) -> int:
        return math.prod(self.in_shape)

    def integers(self) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        channels, rows, columns = self.in_shape
        w_in, w_rec, v_th = super().integers()
        every = w_in.reshape(-1, channels, 1, columns).expand(-1, channels, rows, columns)
        return every.reshape(len(w_in), -1), w_rec, v_th

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = super().forward(x.reshape(*x.shape[:2], *self.in_shape).sum(3).flatten(2))
        return found


class NormConvSnn(Snn):
    """Of an image that is shown for some steps. Input (1 or more, B, features) float 0/1, output (B, classes) logits.

    The steps of the input are taken to be alike.
    """

    def __init__(
        self, in_shape: tuple[int, int, int], convolutions: list[ConvSpec], out: LayerSpec, steps: int, dropout: float
    ) -> None:
        """``in_shape``: channels, height and width of the input, whose features are in that order."""
        layers: list[NormConvLayer] = []
        for spec in convolutions:
            layers.append(NormConvLayer(in_shape, spec))
            in_shape = layers[-1].conv.out_shape(tuple(layers[-1].w_in.shape))
        super().__init__(math.prod(in_shape), [], out, 1.0, dropout)
        self.convolutions = layers
        self.hidden = nn.ModuleList(layers)
        self.out = MeanReadout(in_shape, out)
        self.steps = steps

    def grade(self, graded: bool) -> None:
        """Train rates, whose gradients are true, or spikes: who learnt the former first ends better."""
        for layer in self.convolutions:
            if graded and (self.steps < 2 or not layer.spec.k_v):
                raise ValueError("one step, or no memory of the last one, has no rates between never and always")
            layer.graded = graded

    def fold(self) -> None:
        """From now on train what the integer network will be."""
        for layer in self.convolutions:
            layer.folded = True

    def spikes(self, x: torch.Tensor) -> torch.Tensor:
        self.rates = []
        x = x[:1]
        for i, layer in enumerate(self.convolutions):
            x = layer(x, self.steps)
            self.rates.append(x.mean())
            if self.training and i in (1, len(self.convolutions) - 1):
                # Whole channels: neighbours say the same.
                keep = torch.rand(1, x.shape[1], len(layer.w_in), 1) > self.dropout
                x = (x.reshape(*x.shape[:2], len(layer.w_in), -1) * keep / (1 - self.dropout)).reshape(x.shape)
        return x.expand(self.steps, -1, -1)
