"""A network over several sensors: in each layer every sensor has neurons of its own, and the readout hears all.

To everybody else such a layer is a dense one: its weights are the blocks' on the diagonal, on one grid, with one
threshold. ``FusedSnn`` is trained with modality dropout (Neverova et al., ModDrop, 2015): now and then all spikes of a
sensor are missing, as they are when it is unplugged.
"""

from dataclasses import dataclass

import torch
from torch import nn

from models.convolution import ConvShape
from models.train.conv import SETTLED, SETTLING_TURNS, START_RATE
from models.train.lif import DECAY_ONE, LayerSpec, Lif, QuantLayer, Snn, on_grid


@dataclass(frozen=True, slots=True)
class DenseBlock:
    """So many neurons behind all of the sensor's neurons in the layer before."""

    neurons: int
    recurrent: bool = False


@dataclass(frozen=True, slots=True)
class ConvBlock:
    """A convolution over the sensor's neurons in the layer before."""

    channels: int
    kernel: int
    stride: int
    padding: int


Shape = int | tuple[int, int, int]
"""Of a sensor's neurons: how many, or channels, rows and columns."""


class Block(nn.Module):
    """The neurons of one sensor in one layer."""

    def __init__(self, before: Shape, spec: DenseBlock | ConvBlock, gain: float) -> None:
        super().__init__()
        self.conv: ConvShape | None = None
        self.w_rec: nn.Parameter | None = None
        if isinstance(spec, ConvBlock):
            if isinstance(before, int):
                raise ValueError(f"a convolution over {before} neurons without rows and columns")
            kernel = (spec.channels, before[0], spec.kernel, spec.kernel)
            self.conv = ConvShape(before, (spec.stride, spec.stride), (spec.padding, spec.padding))
            self.conv.check(kernel, "a block to train")
            self.inputs = before[0] * before[1] * before[2]
            self.shape: Shape = self.conv.out_shape(kernel)
            self.w_in = nn.Parameter(torch.randn(kernel) * gain / (before[0] * spec.kernel**2) ** 0.5)
        else:
            self.inputs = before if isinstance(before, int) else before[0] * before[1] * before[2]
            self.shape = spec.neurons
            self.w_in = nn.Parameter(torch.randn(spec.neurons, self.inputs) * gain / self.inputs**0.5)
            if spec.recurrent:
                self.w_rec = nn.Parameter(torch.randn(spec.neurons, spec.neurons) * 0.3 * gain / spec.neurons**0.5)
        self.neurons = self.shape if isinstance(self.shape, int) else self.shape[0] * self.shape[1] * self.shape[2]

    def largest(self) -> torch.Tensor:
        found = self.w_in.detach().abs().max()
        return found if self.w_rec is None else torch.maximum(found, self.w_rec.detach().abs().max())

    def current(self, x: torch.Tensor, w_in: torch.Tensor) -> torch.Tensor:
        """(T, B, inputs) through ``w_in`` to (T, B, neurons)."""
        if self.conv is None:
            return x @ w_in.t()
        images = x.reshape(-1, *self.conv.in_shape)
        out = nn.functional.conv2d(images, w_in, stride=self.conv.stride, padding=self.conv.padding)
        return out.reshape(*x.shape[:2], -1)

    def dense(self, w_in: torch.Tensor) -> torch.Tensor:
        """``w_in`` written out as (neurons, inputs)."""
        if self.conv is None:
            return w_in
        return self.current(torch.eye(self.inputs)[None], w_in)[0].t()


class BlockLayer(QuantLayer):
    """One population, a block for each sensor."""

    def __init__(self, before: list[Shape], blocks: list[DenseBlock | ConvBlock], spec: LayerSpec, gain: float) -> None:
        """``spec``: decays and limit of all; its number of neurons is that of the blocks."""
        nn.Module.__init__(self)
        self.blocks = [Block(shape, block, gain) for shape, block in zip(before, blocks, strict=True)]
        self.trained = nn.ModuleList(self.blocks)
        self.sizes_in = [block.inputs for block in self.blocks]
        self.sizes = [block.neurons for block in self.blocks]
        self.spec = LayerSpec(sum(self.sizes), spec.k_u, spec.k_v, spec.limit)
        self.spiking = True

    @property
    def inputs(self) -> int:
        return sum(self.sizes_in)

    def scale(self) -> torch.Tensor:
        return 127 / torch.stack([block.largest() for block in self.blocks]).max()

    def integers(self) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        scale = self.scale()
        w_in = [block.dense(torch.round(block.w_in.detach() * scale)) for block in self.blocks]
        rec = [
            torch.zeros(block.neurons, block.neurons) if block.w_rec is None else block.w_rec.detach()
            for block in self.blocks
        ]
        w_rec = torch.round(torch.block_diag(*rec) * scale).to(torch.int8)
        recurrent = any(block.w_rec is not None for block in self.blocks)
        dense = torch.round(torch.block_diag(*w_in)).to(torch.int8)
        return dense, w_rec if recurrent else None, round(float(2 * scale))

    def clamp_(self) -> None:
        for block in self.blocks:
            for weight in (block.w_in, block.w_rec):
                if weight is not None:
                    weight.data.clamp_(-self.spec.limit, self.spec.limit)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.scale()
        v_th = torch.round(2 * scale) / (2 * scale)
        k_u, k_v = self.spec.k_u / DECAY_ONE, self.spec.k_v / DECAY_ONE
        out, rates = [], []
        for block, part in zip(self.blocks, x.split(self.sizes_in, dim=2), strict=True):
            if not bool(part.any()):  # a sensor that is missing from the whole batch: nothing spikes
                out.append(x.new_zeros(*x.shape[:2], block.neurons))
                continue
            w_rec = None if block.w_rec is None else on_grid(block.w_rec, scale)
            spikes = Lif.apply(block.current(part, on_grid(block.w_in, scale)), w_rec, k_u, k_v, v_th)
            out.append(spikes)
            rates.append(spikes.mean())
        self.rate = torch.stack(rates).mean() if rates else x.new_zeros(())
        return torch.cat(out, dim=2)


class FusedSnn(Snn):
    """Layers of blocks and an integrator over all. Input (T, B, features) float 0/1, output (B, classes) logits."""

    def __init__(
        self,
        shapes: list[Shape],
        layers: list[list[DenseBlock | ConvBlock]],
        spec: LayerSpec,
        out: LayerSpec,
        gain: float,
        dropout: float,
    ) -> None:
        """``shapes``: of each sensor's features. ``layers``: of each layer, every sensor's block."""
        made: list[BlockLayer] = []
        before = shapes
        for blocks in layers:
            made.append(BlockLayer(before, blocks, spec, gain))
            before = [block.shape for block in made[-1].blocks]
        super().__init__(made[-1].spec.neurons, [], out, gain, dropout)
        self.populations = made
        self.hidden = nn.ModuleList(made)

    def spikes(self, x: torch.Tensor) -> torch.Tensor:
        """As of ``Snn``, with dropout behind the last layer only; rates are of sensors that are there."""
        self.rates = []
        for layer in self.populations:
            x = layer(x)
            self.rates.append(layer.rate)
        if self.training and self.dropout:
            x = x * (torch.rand_like(x[0]) > self.dropout) / (1 - self.dropout)
        return x


def settle(net: FusedSnn, x: torch.Tensor) -> None:
    """Scale the weights of each block so that it begins at ``START_RATE`` on the input ``x``."""
    with torch.no_grad():
        for layer in net.populations:
            for _ in range(SETTLING_TURNS):
                rates = [float(part.mean()) for part in layer(x).split(layer.sizes, dim=2)]
                if all(START_RATE / SETTLED < rate < START_RATE * SETTLED for rate in rates):
                    break
                for block, rate in zip(layer.blocks, rates, strict=True):
                    if not START_RATE / SETTLED < rate < START_RATE * SETTLED:
                        block.w_in.mul_(1.25 if rate < START_RATE else 0.8)
            x = layer(x)
