"""The training loop that the shipped models share, and the integer check at its end."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils import deterministic

from models import batch as reference
from models.base import BadModel
from models.network import Network
from models.train.lif import Snn

Rasters = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
THREADS = 1
"""The sums of more depend on their number, and small layers gain little."""
Objective = Callable[[Snn, torch.Tensor, torch.Tensor], tuple[torch.Tensor, float]]
"""Loss, and a number for people, of a batch: steps (T, B, features) and its labels, or rows of labels."""
WARM_UP = 25.0
"""The highest rate of learning is so many times the first."""
BUSY_RATE = 0.15
QUIET_RATE = 0.02
"""Mean spikes per neuron and step are pushed between these: below, gradients die; above, energy is wasted."""


def start(seed: int) -> np.random.Generator:
    """Same seed, same torch version and same machine: same model."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    memory: Any = deterministic  # its stubs do not know the property
    memory.fill_uninitialized_memory = False  # takes an eighth of the time, and nothing reads it
    return np.random.default_rng(seed)


def to_steps(rasters: Rasters) -> torch.Tensor:
    """(B, T, F) uint8 to (T, B, F) float."""
    return torch.from_numpy(np.ascontiguousarray(rasters.transpose(1, 0, 2))).float()


def classify(net: Snn, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Cross entropy with label smoothing of one class per raster, and the part that is right."""
    logits = net(x)
    loss = torch.nn.functional.cross_entropy(logits, y, label_smoothing=0.05)
    return loss, float((logits.argmax(1) == y).float().mean())


def fit(
    net: Snn,
    epoch_items: Callable[[int], tuple[Rasters, Labels]],
    mask: Callable[[torch.Tensor], torch.Tensor],
    *,
    epochs: int,
    batch: int,
    peak_rate: float,
    weight_decay: float,
    averaged_epochs: int,
    last_rate: float | None = None,
    report: Callable[[int, float, float], None],
    objective: Objective = classify,
) -> None:
    """Train ``net`` in place: Adam with one cosine cycle down to ``last_rate`` (None: to nearly nothing); the result
    is the mean of the weights over the last ``averaged_epochs``. ``epoch_items`` gives an epoch's rasters and labels in
    the order of use. Raises BadModel for less than a batch."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=peak_rate, weight_decay=weight_decay)
    schedule: torch.optim.lr_scheduler.OneCycleLR | None = None
    mean: list[torch.Tensor] | None = None
    taken = 0
    for epoch in range(epochs):
        rasters, labels = epoch_items(epoch)
        batches = len(rasters) // batch
        if not batches:
            raise BadModel(f"{len(rasters)} windows to train with are less than one batch of {batch}; give more data")
        if schedule is None:
            end = 1e4 if last_rate is None else peak_rate / WARM_UP / last_rate
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, peak_rate, epochs * batches, pct_start=0.15, div_factor=WARM_UP, final_div_factor=end
            )
        net.train()
        losses = right = 0.0
        for first in range(0, batches * batch, batch):
            x = mask(to_steps(rasters[first : first + batch]))
            y = torch.from_numpy(labels[first : first + batch])
            loss, good = objective(net, x, y)
            activity = [torch.relu(r - BUSY_RATE) ** 2 * 5 + torch.relu(QUIET_RATE - r) * 5 for r in net.rates]
            optimiser.zero_grad()
            (loss + torch.stack(activity).sum()).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            for layer in net.layers():
                layer.clamp_()
            losses += float(loss.detach())
            right += good
            if epoch >= epochs - averaged_epochs:
                taken += 1
                now = [p.detach().clone() for p in net.parameters()]
                mean = now if mean is None else [m + (p - m) / taken for m, p in zip(mean, now, strict=True)]
        report(epoch, losses / batches, right / batches)
    if mean is not None:
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), mean, strict=True):
                parameter.copy_(value)


def predict(net: Snn, rasters: Rasters) -> Labels:
    """Class by the float network."""
    net.eval()
    with torch.no_grad():
        return np.concatenate([net(to_steps(part)).argmax(1).numpy() for part in _parts(rasters)])


def predict_integer(network: Network, rasters: Rasters) -> tuple[Labels, int]:
    """Class by the integer network, and the largest |v| of its readout."""
    potentials, reach = reference.run(network, rasters)
    return potentials.argmax(axis=1), reach[-1].v_seen


def _parts(rasters: Rasters) -> list[Rasters]:
    return np.array_split(rasters, max(1, len(rasters) // 256))


def confusion(truth: Labels, said: Labels, classes: int) -> npt.NDArray[np.int64]:
    """(classes, classes) counts, rows are the truth; ``said`` -1 (no window) counts in no column."""
    counts = np.zeros((classes, classes), np.int64)
    heard = said >= 0
    np.add.at(counts, (truth[heard], said[heard]), 1)
    return counts
