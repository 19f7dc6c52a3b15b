"""Train the shipped model ``wall-following``: what a robot that follows a wall does, from a ring of 24 rangers.

``python -m models.train.wall_following --out DIR`` writes DIR/network.nir, recipe.json, statistics.npz and CARD.md.
"""

import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.datasets.load import load, required
from models.datasets.ranges import RATE_HZ, ring_info
from models.datasets.recording import DataError, Recording, live_windows
from models.encoders.ranges_population import RangesPopulation
from models.train import loop
from models.train.command import guarded, parser
from models.train.finish import Rasters, Recipe, Texts, finish, judge
from models.train.lif import LayerSpec, Snn
from models.window import WindowSpec

LABELS = ["Move-Forward", "Slight-Right-Turn", "Sharp-Right-Turn", "Slight-Left-Turn"]
RANGERS = 24
INFO = ring_info(RANGERS)
WINDOW = WindowSpec(mode="time", samples=1, hop=1)
"""A decision for each turn of the ring: this robot's behaviour has no memory."""
SECTOR_WIDTHS = (3, 4)
"""Of neighbouring rangers, 15 degrees apart: sectors of 45 and 60 degrees, in every direction."""
ENCODER = RangesPopulation.Config(
    centres_m=(*(round(0.345 + 0.01 * i, 3) for i in range(66)), 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5),
    reach=8,
    max_m=4.0,
    sectors=tuple(
        tuple((first + i) % RANGERS for i in range(width)) for width in SECTOR_WIDTHS for first in range(RANGERS)
    ),
    hold=4,
)
HIDDEN = [LayerSpec(neurons=96, k_u=1000, k_v=3400, limit=0.5)]
READOUT = LayerSpec(neurons=len(LABELS), k_u=2000, k_v=3800, limit=1.0)
DT_S = round(1 / RATE_HZ / ENCODER.hold, 6)
SEED = 1
EPOCHS = 24
FOLDS = 4
NOISE_MM = 3.0
GAIN_SPREAD = 0.004
DROPOUT = 0.01
HIDDEN_INPUTS = 0.2


def augment(data: npt.NDArray[np.int32], rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Another lap: ranging noise, rangers whose scale is a little off, echoes that do not come back."""
    gain = 1 + rng.normal(0, GAIN_SPREAD, (1, data.shape[1]))
    moved = np.maximum(np.rint(data * gain + rng.normal(0, NOISE_MM, data.shape)), 1)
    moved[(data == 0) | (rng.random(data.shape) < DROPOUT)] = 0
    return moved.astype(np.int32)


def encode(run: Recording) -> Rasters:
    """The windows that a pipeline would cut. Raises BadModel."""
    windows = live_windows(run, WINDOW)
    encoder = RangesPopulation(ENCODER, run.info, WINDOW.samples)
    rasters = np.empty((len(windows), *encoder.shape), np.uint8)
    for raster, (window, _) in zip(rasters, windows, strict=True):
        encoder.encode(window, raster)
    return Rasters(rasters, np.array([LABELS.index(label) for _, label in windows], np.int64))


def mask(x: torch.Tensor) -> torch.Tensor:
    """Hide cells for whole windows, so that no single ranger or sector carries a decision."""
    return x * (torch.rand(x.shape[1:]) > HIDDEN_INPUTS)


def train(runs: list[Recording], *, epochs: int) -> Snn:
    rng = loop.start(SEED)
    net = Snn(RangesPopulation(ENCODER, INFO, WINDOW.samples).shape[1], HIDDEN, READOUT, gain=0.7, dropout=0.2)
    plain = [encode(run) for run in runs]
    started_s = time.monotonic()

    def epoch_items(_epoch: int) -> tuple[loop.Rasters, loop.Labels]:
        moved = [Recording(r.name, r.label, r.group, augment(r.data, rng), r.info, r.truth) for r in runs]
        found = [*plain, *map(encode, moved)]
        labels = np.concatenate([one.labels for one in found])
        order = rng.permutation(len(labels))
        return np.concatenate([one.rasters for one in found])[order], labels[order]

    def report(epoch: int, loss: float, accuracy: float) -> None:
        print(
            f"epoch {epoch:3} loss {loss:.3f} accuracy {accuracy:.4f} {time.monotonic() - started_s:5.0f} s", flush=True
        )

    loop.fit(
        net,
        epoch_items,
        mask,
        epochs=epochs,
        batch=64,
        peak_rate=3e-3,
        weight_decay=0.02,
        averaged_epochs=4,
        report=report,
    )
    return net


def part(run: Recording, span: slice) -> Recording:
    """A stretch of a run."""
    if run.truth is None:
        raise DataError(f"{run.name}: has no label for each sample")
    return Recording(run.name, run.label, run.group, run.data[span], run.info, run.truth[span])


def main(argv: list[str] | None = None) -> int:
    options = parser(
        "wall_following",
        __doc__ or "",
        "folder with sensor_readings_24.csv; default: ultrasonic_wall_following",
        EPOCHS,
    )
    options.add_argument(
        "--fold", type=int, help=f"judge on this stretch (0..{FOLDS - 1}) of the training part instead; writes nothing"
    )
    args = options.parse_args(argv)
    return guarded(lambda: run(required("ultrasonic_wall_following", args.data), args.out, args.epochs, args.fold))


def run(folder: Path, out: Path, epochs: int, fold: int | None) -> None:
    """Train, judge, and unless ``fold`` is given, write the files. Raises ModelError."""
    started_s = time.monotonic()
    (lap,) = load(folder, "train")
    if lap.info != INFO:
        raise DataError(f"{folder}: {len(lap.info.channels)} rangers, expected {RANGERS}")
    if fold is not None:
        first, last = len(lap.data) * fold // FOLDS, len(lap.data) * (fold + 1) // FOLDS
        rest = [part(lap, slice(0, first)), part(lap, slice(last, None))]
        net = train([one for one in rest if len(one.data)], epochs=epochs)
        judge(net, encode(part(lap, slice(first, last))), len(LABELS))
        return
    (judged,) = load(folder, "test")
    net = train([lap], epochs=epochs)
    recipe = Recipe(
        name="wall-following",
        sensor=INFO,
        window=WINDOW,
        encoder={"kind": "ranges_population", **ENCODER.model_dump(mode="json")},
        labels=LABELS,
        dt_s=DT_S,
    )
    finish(net, recipe, encode(lap), encode(judged), out, texts(len(lap.data), len(judged.data)), started_s)


def texts(train_rows: int, test_rows: int) -> Texts:
    """Of the card."""
    return Texts(
        about=f"""
What a robot that follows a wall on its left does now: forward, slight right turn, sharp right turn or slight left
turn. From a ring of {RANGERS} ultrasonic rangers, 15 degrees apart, at {RATE_HZ:g} Hz; a decision for each cycle of the
ring.
""",
        data=f"""
Wall-Following Robot Navigation Data (Freire, Veloso and Barreto, UCI Machine Learning Repository, 2010): a SCITOS G5
robot that follows the walls of a room clockwise for four rounds. The first {train_rows} samples in time train, the
{test_rows} behind them judge: neighbours in time are nearly equal, so that a shuffled split would flatter. UCI lists
its data sets under CC BY 4.0; for this one that was not confirmed.
""",
        how=f"""
`python -m models.train.wall_following --out DIR`, seed {SEED}, {EPOCHS} epochs of all samples as they are and once
more with ranging noise ({NOISE_MM:g} mm), a scale of each ranger that is off ({GAIN_SPREAD:.1%}) and missing echoes
({DROPOUT:.0%}). Encoded by `ranges_population`: {len(ENCODER.centres_m)} cells for each ranger and for the least
distance of each of {len(ENCODER.sectors)} sectors of 45 and 60 degrees, 1 cm apart up to 1 m. Cells were hidden at
random ({HIDDEN_INPUTS:.0%}). One CUBA-LIF layer of {HIDDEN[0].neurons} neurons and an integrating readout, trained with
weights on the int8 grid (straight-through), reset to zero, no bias.
""",
        limits="""
- It imitates one controller of one robot, whose rule compares the least distance in front and at the left with fixed
  bounds: what is missed lies within a centimetre of a bound. It follows walls at the left only.
- The ring must be mounted and numbered as this robot's: d0 to d23, 15 degrees apart. As `ultrasonic.array` gives it:
  `transducers = 24`, `rate_hz = 9`, distances to 4 m; what is further counts as no echo.
- One room. Rangers that say nothing are taken for free space: of a hundred decisions, one more is wrong when one echo
  in twenty is missing, and two more with ranging noise of 10 mm or a scale that is off by 1 %. Nothing here brakes a
  robot; keep a bumper.
""",
    )


if __name__ == "__main__":
    sys.exit(main())
