"""Train the shipped model ``event-digits``: a handwritten digit before a moving event camera.

``python -m models.train.event_digits --out DIR`` writes what ``axond model build DIR`` makes the bundle of.
"""

import sys
import time
from pathlib import Path

import numpy as np

from models.base import Window
from models.datasets import nmnist
from models.datasets.load import load, required
from models.datasets.recording import DataError, Recording, live_window
from models.encoders.event_bins import EventBins
from models.train import loop
from models.train.augment_events import Spread, distort
from models.train.command import guarded, parser
from models.train.conv import ConvSnn, ConvSpec, settle
from models.train.finish import Rasters, Recipe, Texts, finish, judge
from models.train.lif import LayerSpec
from models.window import WindowSpec

LABELS = [str(digit) for digit in range(10)]
WINDOW = WindowSpec(mode="onset", samples=300_000, pre=10_000, ratio=4.0, frames=2)
ENCODER = EventBins.Config(width=nmnist.SIDE, height=nmnist.SIDE, step_us=20_000)
CONVOLUTIONS = [
    ConvSpec(channels=12, kernel=5, stride=2, padding=2, k_u=1500, k_v=3000, limit=1.0),
    ConvSpec(channels=32, kernel=3, stride=2, padding=1, k_u=1500, k_v=3000, limit=1.0),
]
READOUT = LayerSpec(neurons=10, k_u=2800, k_v=3800, limit=1.0)
RECIPE = Recipe(
    name="event-digits",
    sensor=nmnist.CAMERA_INFO,
    window=WINDOW,
    encoder={"kind": "event_bins", **ENCODER.model_dump(mode="json")},
    labels=LABELS,
    dt_s=ENCODER.step_us / 1e6,
)
SPREAD = Spread()
SEED = 1
EPOCHS = 110
BATCH = 32
FOLDS = 6
"""For validation the training part is cut into so many blocks of recordings that came one after the other."""


def windows_of(recordings: list[Recording]) -> list[Window]:
    """As a pipeline cuts them. Raises DataError where none begins."""
    found = []
    for recording in recordings:
        window = live_window(recording, WINDOW)
        if window is None:
            raise DataError(f"{recording.name}: no activity begins in it")
        found.append(window)
    return found


def encode(windows: list[Window], rng: np.random.Generator | None) -> loop.Rasters:
    """Rasters (n, steps, features); of distorted copies when ``rng`` is given."""
    encoder = EventBins(ENCODER, nmnist.CAMERA_INFO, WINDOW.samples)
    out = np.zeros((len(windows), *encoder.shape), np.uint8)
    for i, window in enumerate(windows):
        seen = window
        if rng is not None:
            data = distort(window.data, nmnist.SIDE, nmnist.SIDE, rng, SPREAD)
            seen = Window(window.t0_ns, 0, data, window.info, span_ns=window.span_ns)
        encoder.encode(seen, out[i])
    return out


def labels_of(recordings: list[Recording]) -> loop.Labels:
    return np.array([LABELS.index(recording.label) for recording in recordings], np.int64)


def heard(recordings: list[Recording]) -> Rasters:
    """Of recordings to judge: those without a window count as missed."""
    pairs = [(recording, live_window(recording, WINDOW)) for recording in recordings]
    known = [(recording, window) for recording, window in pairs if window is not None]
    rasters = encode([window for _, window in known], None)
    return Rasters(rasters, labels_of([recording for recording, _ in known]), len(pairs) - len(known))


def train(recordings: list[Recording], *, epochs: int) -> ConvSnn:
    """Each epoch sees every recording once, distorted anew."""
    rng = loop.start(SEED)
    windows, labels = windows_of(recordings), labels_of(recordings)
    net = ConvSnn((2, nmnist.SIDE, nmnist.SIDE), CONVOLUTIONS, [], READOUT, gain=1.0, dropout=0.2)
    settle(net, loop.to_steps(encode(windows[:64], None)))
    started = time.monotonic()

    def epoch_items(_epoch: int) -> tuple[loop.Rasters, loop.Labels]:
        order = rng.permutation(len(labels))
        return encode([windows[i] for i in order], rng), labels[order]

    def report(epoch: int, loss: float, accuracy: float) -> None:
        print(
            f"epoch {epoch:3} loss {loss:.3f} accuracy {accuracy:.4f} {time.monotonic() - started:5.0f} s", flush=True
        )

    loop.fit(
        net,
        epoch_items,
        lambda x: x,
        epochs=epochs,
        batch=BATCH,
        peak_rate=4e-3,
        weight_decay=0.01,
        averaged_epochs=4,
        report=report,
    )
    return net


def texts(train_count: int, test_count: int, epochs: int) -> Texts:
    first, second = CONVOLUTIONS
    return Texts(
        about=f"""
Which digit, zero to nine, an event camera sees: {nmnist.SIDE} x {nmnist.SIDE} pixels, a window of
{WINDOW.samples // 1000} ms from where activity begins, in {-(-WINDOW.samples // ENCODER.step_us)} steps of
{ENCODER.step_us // 1000} ms. A larger camera needs a part of its picture of that size (the encoder's `crop`).
""",
        data=f"""
N-MNIST (Orchard, Jayawant, Cohen, Thakor: Converting Static Image Datasets to Spiking Neuromorphic Datasets Using
Saccades, Frontiers in Neuroscience 2015), a subset as SLAYER carries it: {train_count} recordings to train,
{test_count} to judge. Handwritten digits of MNIST on a screen, before a camera (ATIS) that a pan-tilt unit moves in
three saccades.

N-MNIST is published under CC BY-SA 4.0 as far as we know, which we could not confirm; the repository that carries the
subset is GPL-3.0. Changes: distorted and turned into spikes for training.
""",
        how=f"""
`python -m models.train.event_digits --out DIR`, seed {SEED}, {epochs} epochs, every recording distorted anew in each:
shifted by up to {SPREAD.shift_px:g} pixels, turned by up to {SPREAD.turn_deg:g} degrees, scaled, sheared, bent, faster
or slower, with up to {SPREAD.drop:.0%} of the events missing and up to {SPREAD.noise_events} added. Encoded by
`event_bins`. Two convolutions of LIF neurons ({first.channels} kernels of {first.kernel} x {first.kernel}, then
{second.channels} of {second.kernel} x {second.kernel}, both with stride 2) and an integrating readout, trained with
weights on the int8 grid (straight-through), reset to zero, no bias.
""",
        limits="""
- One camera, one lens, one kind of motion, one size, bright digits on dark: what moves otherwise, as a hand before the
  camera does, is another task. Every onset of activity gets one of the ten labels.
- MNIST's writers are employees of the US Census Bureau and American pupils; digits written elsewhere (a one with a long
  upstroke, a seven with a bar) are rarer in it and are confused more. The recordings with odd numbers are those of
  other writers and clearly harder.
- Where activity never pauses, no window begins after the first.
""",
    )


def main(argv: list[str] | None = None) -> int:
    options = parser("event_digits", __doc__ or "", "folder with labels.csv; default: event_nmnist", EPOCHS)
    options.add_argument(
        "--fold", type=int, help=f"judge on this block (0..{FOLDS - 1}) of the training part instead; writes nothing"
    )
    args = options.parse_args(argv)
    return guarded(lambda: run(required("event_nmnist", args.data), args.out, args.epochs, args.fold))


def run(folder: Path, out: Path, epochs: int, fold: int | None) -> None:
    """Train, judge, and unless ``fold`` is given, write the files. Raises ModelError."""
    started_s = time.monotonic()
    recordings = load(folder, "train")
    if fold is not None:
        blocks = np.arange(len(recordings)) * FOLDS // len(recordings)
        judged = [r for r, block in zip(recordings, blocks, strict=True) if block == fold]
        recordings = [r for r, block in zip(recordings, blocks, strict=True) if block != fold]
        judge(train(recordings, epochs=epochs), heard(judged), len(LABELS))
        return
    judged = load(folder, "test")
    net = train(recordings, epochs=epochs)
    plain = Rasters(encode(windows_of(recordings), None), labels_of(recordings))
    finish(net, RECIPE, plain, heard(judged), out, texts(len(recordings), len(judged), epochs), started_s)


if __name__ == "__main__":
    sys.exit(main())
