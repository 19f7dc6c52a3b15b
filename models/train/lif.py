"""Quantisation-aware CUBA-LIF layers: trained in float on the grid of the integer network.

Step of a spiking layer (SNN arithmetic of models/network.py, without its truncation of 1/128 weight unit):
``u = k_u u + W x + W_rec s_prev``, ``v = k_v v + u``, ``s = v > v_th``, ``v = 0 where s``. The last layer is the same
without spike and reset; the readout is the sum of its v over the steps.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

DECAY_ONE = 4096
SURROGATE_SLOPE = 4.0


class Lif(torch.autograd.Function):
    """Spikes (T, B, N) of currents (T, B, N), back-propagated through time by hand (about four times faster)."""

    @staticmethod
    def forward(ctx, current, w_rec, k_u, k_v, v_th):  # type: ignore[no-untyped-def]  # torch calls it with what it likes
        steps, batch, neurons = current.shape
        spikes = torch.empty_like(current)
        distance = torch.empty_like(current)
        u = current.new_zeros(batch, neurons)
        v = current.new_zeros(batch, neurons)
        for t in range(steps):
            u.mul_(k_u).add_(current[t])
            if w_rec is not None and t:
                u.addmm_(spikes[t - 1], w_rec.t())
            v.mul_(k_v).add_(u)
            torch.sub(v, v_th, out=distance[t])
            torch.gt(distance[t], 0, out=spikes[t])
            v.mul_(1 - spikes[t])
        ctx.save_for_backward(spikes, distance, w_rec)
        ctx.k_u, ctx.k_v, ctx.v_th = k_u, k_v, float(v_th)
        return spikes

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # torch calls it with what it likes
        spikes, distance, w_rec = ctx.saved_tensors
        surrogate = (1 + SURROGATE_SLOPE / ctx.v_th * distance.abs()).pow_(-2).div_(ctx.v_th)
        keep = 1 - spikes
        g_current = torch.empty_like(grad)
        g_u = torch.zeros_like(grad[0])
        g_v = torch.zeros_like(grad[0])
        for t in range(len(grad) - 1, -1, -1):
            g_s = grad[t] if w_rec is None or t == len(grad) - 1 else grad[t].addmm(g_u, w_rec)
            g_v.mul_(ctx.k_v).mul_(keep[t]).addcmul_(g_s, surrogate[t])
            g_u.mul_(ctx.k_u).add_(g_v)
            g_current[t] = g_u
        g_rec = None
        if w_rec is not None:
            g_rec = torch.einsum("tbn,tbm->nm", g_current[1:], spikes[:-1])
        return g_current, g_rec, None, None, None


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """``k_u``, ``k_v`` in 1..4095 of 4096; ``limit`` bounds the weights (spiking layers: threshold = 1).

    ``weight_bits`` 8 or 4: the grid that the weights are trained on. A coarse grid wants a small ``limit``: it must
    have steps well below the threshold.
    """

    neurons: int
    k_u: int
    k_v: int
    limit: float
    recurrent: bool = False
    weight_bits: int = 8


class QuantLayer(nn.Module):
    """One population. Weights are rounded to its integers on the way forward; gradients pass as if they were not."""

    def __init__(self, inputs: int, spec: LayerSpec, spiking: bool, gain: float) -> None:
        super().__init__()
        self.spec = spec
        self.spiking = spiking
        self.w_in = nn.Parameter(torch.randn(spec.neurons, inputs) * gain / inputs**0.5)
        self.w_rec: nn.Parameter | None = None
        if spec.recurrent:
            self.w_rec = nn.Parameter(torch.randn(spec.neurons, spec.neurons) * 0.3 * gain / spec.neurons**0.5)

    @property
    def inputs(self) -> int:
        """Of a dense layer."""
        return int(self.w_in.shape[1])

    def keep(self, neurons: int) -> None:
        """The first ones only."""
        self.w_in = nn.Parameter(self.w_in.detach()[:neurons].clone())
        self.spec = replace(self.spec, neurons=neurons)

    def scale(self) -> torch.Tensor:
        """Weight units per unit of float weight: the largest weight becomes 127, or 7 in 4 bits."""
        largest = self.w_in.detach().abs().max()
        if self.w_rec is not None:
            largest = torch.maximum(largest, self.w_rec.detach().abs().max())
        return ((1 << (self.spec.weight_bits - 1)) - 1) / largest

    def integers(self) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        """Integer weights, as int8, and threshold (v_th of models/network.py; 0 for the integrator)."""
        scale = self.scale()
        w_rec = None if self.w_rec is None else torch.round(self.w_rec.detach() * scale).to(torch.int8)
        v_th = round(float(2 * scale)) if self.spiking else 0
        return torch.round(self.w_in.detach() * scale).to(torch.int8), w_rec, v_th

    def biases(self) -> torch.Tensor:
        """Of each channel or neuron, in weight units; float64, whole 1 / 2^7ths of one."""
        return torch.zeros(len(self.w_in), dtype=torch.float64)

    def clamp_(self) -> None:
        """Keep outliers from coarsening everybody's grid."""
        for weight in (self.w_in, self.w_rec):
            if weight is not None:
                weight.data.clamp_(-self.spec.limit, self.spec.limit)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(T, B, inputs) to spikes (T, B, neurons), or to the summed potential (B, neurons) of the integrator."""
        scale = self.scale()
        w_in = on_grid(self.w_in, scale)
        k_u, k_v = self.spec.k_u / DECAY_ONE, self.spec.k_v / DECAY_ONE
        if self.spiking:
            w_rec = None if self.w_rec is None else on_grid(self.w_rec, scale)
            v_th = torch.round(2 * scale) / (2 * scale)
            spikes: torch.Tensor = Lif.apply(x @ w_in.t(), w_rec, k_u, k_v, v_th)
            return spikes
        weights = summed_response(len(x), k_u, k_v, x)
        return torch.tensordot(weights, x, dims=1) @ w_in.t()


def summed_response(steps: int, k_u: float, k_v: float, like: torch.Tensor) -> torch.Tensor:
    """What one input at step t adds to the sum over the steps of an integrator's v: (T,)."""
    u = v = total = 0.0
    out = []
    for t in range(steps):
        u = k_u * u + (1.0 if t == 0 else 0.0)
        v = k_v * v + u
        total += v
        out.append(total)
    return like.new_tensor(out[::-1])


def on_grid(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return weight + (torch.round(weight * scale) / scale - weight).detach()


class Snn(nn.Module):
    """Spiking layers and an integrator. Input (T, B, features) float 0/1, output (B, classes) logits."""

    def __init__(self, features: int, hidden: list[LayerSpec], out: LayerSpec, gain: float, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.ModuleList()
        inputs = features
        for spec in hidden:
            self.hidden.append(QuantLayer(inputs, spec, spiking=True, gain=gain))
            inputs = spec.neurons
        self.out = QuantLayer(inputs, out, spiking=False, gain=gain)
        self.dropout = dropout
        self.log_gain = nn.Parameter(torch.zeros(()))

    def layers(self) -> list[QuantLayer]:
        return [*self.hidden, self.out]

    def input_names(self) -> list[str]:
        """Of each layer of the first stage."""
        return ["input"]

    def stages(self) -> list[list[tuple[str, QuantLayer]]]:
        """The same with their names, those side by side together."""
        *hidden, out = self.layers()
        return [*([(f"hidden{i}", layer)] for i, layer in enumerate(hidden)), [("readout", out)]]

    def spikes(self, x: torch.Tensor) -> torch.Tensor:
        """What the last layer sees, (T, B, neurons); remembers the mean rates of the layers before it."""
        self.rates = []
        for layer in self.hidden:
            x = layer(x)
            self.rates.append(x.mean())
            if self.training and self.dropout:
                x = x * (torch.rand_like(x[0]) > self.dropout) / (1 - self.dropout)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes = self.spikes(x)
        return self.out(spikes) / len(spikes) * torch.exp(self.log_gain)
