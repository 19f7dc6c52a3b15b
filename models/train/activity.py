"""Train the shipped model ``activity``: six daily activities from a waist-worn inertial sensor.

``python -m models.train.activity --out DIR`` writes what ``axond model build DIR`` takes.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.datasets.load import load, required
from models.datasets.recording import ACTIVITIES, IMU_INFO, DataError, Recording, live_window
from models.encoders.imu_bands import ImuBands
from models.train import export, finish, loop
from models.train.augment_imu import Floats, integers, rotation, turned
from models.train.command import guarded, parser
from models.train.lif import LayerSpec, Snn
from models.window import WindowSpec

WINDOW = WindowSpec(mode="time", samples=128, hop=64)
ENCODER = ImuBands.Config()
HIDDEN = [LayerSpec(neurons=128, k_u=1500, k_v=3000, limit=0.5)]
READOUT = LayerSpec(neurons=len(ACTIVITIES), k_u=1, k_v=3900, limit=1.0)
DT_S = ENCODER.hop / ENCODER.rate_hz
SEED = 1
EPOCHS = 30
VARIANTS = 8
"""Augmented copies of every training window; each epoch takes one of them, or the original, at random."""
MOUNTING_DEG = 10.0
"""Standard deviation of the angle by which sensors are turned in training."""
HIDDEN_INPUT = 0.1
"""Part of the features that a window loses in training, others at each step of training."""
DROPOUT = 0.4
AVERAGED_EPOCHS = 8
FOLDS = 5
TURNS_DEG = (5, 10, 15, 20)
TRIES = 4
"""Random axes per window, for the accuracy of a turned sensor."""


def augment(data: npt.NDArray[np.int16], rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Another wearer: turned, livelier or calmer, faster or slower, with another sensor's noise and offsets."""
    physical = turned(data, rotation(rng, rng.normal(0, MOUNTING_DEG))) * np.asarray(IMU_INFO.scale)
    acceleration_g, rotation_dps = physical[:, :3], physical[:, 3:]
    gravity_g = acceleration_g.mean(axis=0)
    acceleration_g = gravity_g * (1 + rng.normal(0, 0.015)) + (acceleration_g - gravity_g) * np.exp(rng.normal(0, 0.12))
    rotation_dps = rotation_dps * np.exp(rng.normal(0, 0.12))
    moved = np.concatenate([acceleration_g, rotation_dps], axis=1)
    if rng.random() < 0.5:
        moved = paced(moved, float(np.exp(rng.normal(0, 0.06))), rng.random())
    moved[:, :3] += rng.normal(0, rng.uniform(0, 0.003), (len(moved), 3))
    moved[:, 3:] += rng.normal(0, rng.uniform(0, 0.25), (len(moved), 3))
    return integers(moved)


def paced(moved: Floats, factor: float, where: float) -> Floats:
    """The same, ``factor`` times faster; a part of it if slower, else what is missing at the end runs backwards."""
    last = len(moved) - 1
    at = np.arange(len(moved)) * factor
    at = last - np.abs(last - at - max(0.0, last - at[-1]) * where)
    return np.stack([np.interp(at, np.arange(len(moved)), channel) for channel in moved.T], axis=1)


def encode(recordings: list[Recording]) -> loop.Rasters:
    """Rasters of the windows that a pipeline would cut. Raises DataError."""
    encoder = ImuBands(ENCODER, IMU_INFO, WINDOW.samples)
    out = np.zeros((len(recordings), *encoder.shape), np.uint8)
    for i, recording in enumerate(recordings):
        window = live_window(recording, WINDOW)
        if window is None:
            raise DataError(f"{recording.name}: shorter than {WINDOW.samples} samples")
        encoder.encode(window, out[i])
    return out


def mounted(recordings: list[Recording], angle_deg: float, rng: np.random.Generator) -> list[Recording]:
    """The same recordings from sensors that sit turned by this angle, each about another axis."""
    return [replace(r, data=turned(r.data, rotation(rng, angle_deg))) for r in recordings]


def labels_of(recordings: list[Recording]) -> loop.Labels:
    return np.array([ACTIVITIES.index(recording.label) for recording in recordings], np.int64)


def train(recordings: list[Recording], *, epochs: int) -> Snn:
    rng = loop.start(SEED)
    copies = [[replace(r, data=augment(r.data, rng)) for r in recordings] for _ in range(VARIANTS)]
    banks = [encode(copy) for copy in (recordings, *copies)]
    labels = labels_of(recordings)
    net = Snn(banks[0].shape[2], HIDDEN, READOUT, gain=0.5, dropout=DROPOUT)

    def epoch_items(_epoch: int) -> tuple[loop.Rasters, loop.Labels]:
        order = rng.permutation(len(labels))
        which = rng.integers(0, len(banks), len(labels))
        return np.stack([banks[which[i]][i] for i in order]), labels[order]

    def mask(x: torch.Tensor) -> torch.Tensor:
        return x * (torch.rand(1, x.shape[1], x.shape[2]) > HIDDEN_INPUT)

    started = time.monotonic()

    def report(epoch: int, loss: float, accuracy: float) -> None:
        print(
            f"epoch {epoch:3} loss {loss:.3f} accuracy {accuracy:.4f} {time.monotonic() - started:5.0f} s", flush=True
        )

    loop.fit(
        net,
        epoch_items,
        mask,
        epochs=epochs,
        batch=64,
        peak_rate=3e-3,
        weight_decay=0.01,
        averaged_epochs=AVERAGED_EPOCHS,
        report=report,
    )
    return net


def when_turned(net: Snn, recordings: list[Recording]) -> dict[int, float]:
    """Accuracy of the int8 network by angle: on each recording, turned about ``TRIES`` random axes."""
    network, labels = export.integer_network(net), labels_of(recordings)
    rng = np.random.default_rng(SEED)
    found = {}
    for angle_deg in TURNS_DEG:
        rasters = [encode(mounted(recordings, angle_deg, rng)) for _ in range(TRIES)]
        found[angle_deg] = float(np.mean([loop.predict_integer(network, r)[0] == labels for r in rasters]))
        print(f"turned by {angle_deg} degrees: int8 {found[angle_deg]:.4f}", flush=True)
    return found


def texts(train_windows: int, test_windows: int, by_angle: dict[int, float]) -> finish.Texts:
    """The author's parts of the card."""
    angles = "; ".join(f"{angle} degrees {accuracy:.3f}" for angle, accuracy in by_angle.items())
    return finish.Texts(
        about="""Walking, walking upstairs, walking downstairs, sitting, standing or laying, from a three-axis
accelerometer and gyroscope worn at the waist: 50 Hz, windows of 2.56 s, a decision every 1.28 s.""",
        data=f"""UCI HAR (Anguita, Ghio, Oneto, Parra, Reyes-Ortiz: A Public Domain Dataset for Human Activity
Recognition Using Smartphones, ESANN 2013), a subset: {train_windows} training windows and {test_windows} test windows
of other people (the official split by person, 21 and 9 people in the full set; the subset does not name them),
smartphone (Samsung Galaxy S II) on the waist.

Licence of the data: two texts exist. The UCI repository lists the dataset under CC BY 4.0. The dataset's original
README says that its use is free with citation and that any commercial use is prohibited. Treat this model as for
research until you have cleared that.""",
        how=f"""`make train-activity` (seed {SEED}, {EPOCHS} epochs). Total acceleration and rotation as a WitMotion
sensor would send them (int16, 16 g and 2000 deg/s full scale). Encoder `imu_bands`: a spectrogram of the six axes and
of acceleration and rotation along gravity and across it, as a thermometer code of dB, and the direction of gravity as
a population code. Augmented by small rotations, scale, pace and noise; a tenth of the input is hidden in training.
One CUBA-LIF layer of {HIDDEN[0].neurons} neurons and an integrating readout, trained with weights on the int8 grid
(straight-through), reset to zero, no bias; the result is the mean of the weights of the last {AVERAGED_EPOCHS} epochs.
Chosen by the mean over {FOLDS} blocks of the training part (groups of people), never by the test part.""",
        limits="""- Sitting and standing differ by a few degrees at the waist only, and are confused most.
- Thirty volunteers of 19 to 48 years, one place, scripted activities: older, younger or impaired people, running,
  cycling and transitions were never seen. Every window gets one of the six labels, also when none fits.
- The sensor must sit at the waist about as in training (x up along the body, about 1 g when upright).
- Not a medical device and no fall detector.""",
        more=f"\nWith the sensor turned about random axes, int8: {angles}.\n",
    )


def main(argv: list[str] | None = None) -> int:
    options = parser("activity", __doc__ or "", "folder with har.npz; default: imu_uci_har", EPOCHS)
    options.add_argument(
        "--fold", type=int, help=f"judge on this block (0..{FOLDS - 1}) of the training part instead; writes nothing"
    )
    args = options.parse_args(argv)
    return guarded(lambda: run(required("imu_uci_har", args.data), args.out, args.epochs, args.fold))


def run(folder: Path, out: Path, epochs: int, fold: int | None) -> None:
    """Train, judge, and unless ``fold`` is given, write. Raises ModelError."""
    started_s = time.monotonic()
    recordings = load(folder, "train")
    if fold is None:
        judged = load(folder, "test")
    else:
        blocks = np.arange(len(recordings)) * FOLDS // len(recordings)
        judged = [r for r, block in zip(recordings, blocks, strict=True) if block == fold]
        recordings = [r for r, block in zip(recordings, blocks, strict=True) if block != fold]
    net = train(recordings, epochs=epochs)
    test = finish.Rasters(encode(judged), labels_of(judged))
    if fold is not None:
        finish.judge(net, test, len(ACTIVITIES))
        when_turned(net, judged)
        return
    recipe = finish.Recipe(
        name="activity",
        sensor=IMU_INFO,
        window=WINDOW,
        encoder={"kind": "imu_bands", **ENCODER.model_dump(mode="json")},
        labels=list(ACTIVITIES),
        dt_s=DT_S,
    )
    seen = finish.Rasters(encode(recordings), labels_of(recordings))
    words = texts(len(recordings), len(judged), when_turned(net, judged))
    finish.finish(net, recipe, seen, test, out, words, started_s)


if __name__ == "__main__":
    sys.exit(main())
