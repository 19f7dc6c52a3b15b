"""Training for words in a stream: a decision at every step over the last ``readout_steps``, and what it should be.

A scene is a raster with at most one word. Its row of labels: class, and three steps: from the first on, the word can be
told by its beginning, so that nothing is asked; between the second and the third it must be told. ``FORGIVEN`` steps
after that the answer must be the background again.
"""

import numpy as np
import torch

from models.train.lif import DECAY_ONE, LayerSpec, Snn, on_grid

FORGIVEN = 30
SETTLE = 8
"""Nothing is asked of the first steps: nobody wakes a device that is being switched on."""
HARDEST = 12
"""Steps of a scene that are least like the background, where they should be: they count once more, by themselves."""


class StreamSnn(Snn):
    """(T, B, features) to logits (T, B, classes) at every step: the mean of the integrator over the last steps.

    The integer network does the same: ``models.stream`` sums its outputs over ``readout_steps``.
    """

    def __init__(
        self, features: int, hidden: list[LayerSpec], out: LayerSpec, readout_steps: int, **how: float
    ) -> None:
        super().__init__(features, hidden, out, **how)
        self.readout_steps = readout_steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes = self.spikes(x)
        driven = spikes @ on_grid(self.out.w_in, self.out.scale()).t()
        k_u, k_v = self.out.spec.k_u / DECAY_ONE, self.out.spec.k_v / DECAY_ONE
        response = readout_response(len(x), k_u, k_v, self.readout_steps)
        logits = torch.tensordot(torch.from_numpy(response), driven, dims=1)
        return logits / self.readout_steps * torch.exp(self.log_gain)


def readout_response(steps: int, k_u: float, k_v: float, readout_steps: int) -> np.ndarray:
    """(steps, steps) float32: what an input at the second step adds to an integrator's v, summed over the last
    ``readout_steps``, at the first."""
    u = v = 0.0
    at = []
    for t in range(steps):
        u = k_u * u + (1.0 if t == 0 else 0.0)
        v = k_v * v + u
        at.append(v)
    total = np.concatenate([np.zeros(readout_steps), np.cumsum(at)])
    after = total[readout_steps:] - total[:steps]
    apart = np.arange(steps)[:, None] - np.arange(steps)
    return np.where(apart >= 0, after[np.maximum(apart, 0)], 0).astype(np.float32)


def objective(net: Snn, x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Loss of scenes (T, B, features) with ``rows`` (B, 4), and the part of words whose best step is right.

    For a word, cross entropy where it must be told, half of it at the best step; for the background, which is the last
    class, cross entropy at all its steps, and once more at the hardest.
    """
    log_p = torch.log_softmax(net(x), dim=2)
    steps, _, classes = log_p.shape
    label, begin, first, last = rows.t()
    at = torch.arange(steps)[:, None]
    spoken = label < classes - 1
    must = (at >= first) & (at <= last) & spoken
    quiet = (~spoken | (at < begin) | (at > last + FORGIVEN)) & (at >= SETTLE)
    own = log_p.gather(2, label.expand(steps, -1)[..., None])[..., 0]
    best = own.masked_fill(~must, -1e9).max(0)
    count = spoken.sum().clamp(min=1)
    told = ((own * must).sum(0) / must.sum(0).clamp(min=1))[spoken].sum() + best.values[spoken].sum()
    missed = -log_p[..., -1]
    hardest = missed.masked_fill(~quiet, 0).topk(HARDEST, dim=0).values.mean()
    loss = -0.5 * told / count + (missed * quiet).sum() / quiet.sum() + hardest
    said = log_p[best.indices, torch.arange(len(label)), :-1].argmax(1)
    return loss, float(((said == label) & spoken).sum() / count)
