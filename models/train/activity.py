"""Train the shipped model ``activity``: six daily activities from a waist-worn inertial sensor.

``python -m models.train.activity --out DIR`` writes DIR/network.nir, recipe.json and CARD.md.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.base import ModelError
from models.datasets.load import find, load
from models.datasets.recording import ACTIVITIES, IMU_INFO, DataError, Recording, live_window
from models.encoders.imu_delta import ImuDelta
from models.train import export, loop
from models.train.lif import LayerSpec, Snn
from models.window import WindowSpec

WINDOW = WindowSpec(mode="time", samples=128, hop=64)
ENCODER = ImuDelta.Config()
HIDDEN = [LayerSpec(neurons=192, k_u=2000, k_v=3400, limit=0.5, recurrent=True)]
READOUT = LayerSpec(neurons=len(ACTIVITIES), k_u=3000, k_v=3900, limit=1.0)
DT_S = 0.02
SEED = 1
EPOCHS = 30
VARIANTS = 8
"""Augmented copies of every training window; each epoch takes one of them, or the original, at random."""
FOLDS = 5


def rotation(rng: np.random.Generator, spread_deg: float) -> npt.NDArray[np.float64]:
    """A random small turn (Rodrigues), as clothes and belts turn a sensor."""
    x, y, z = (axis := rng.normal(0, 1, 3)) / np.linalg.norm(axis)
    angle = np.deg2rad(rng.normal(0, spread_deg))
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: npt.NDArray[np.float64] = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    return turn


def augment(data: npt.NDArray[np.int16], rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Another wearer: turned, livelier or calmer, faster or slower, with another sensor's noise and offsets."""
    turn = rotation(rng, 5.0)
    physical = data * np.asarray(IMU_INFO.scale)
    acceleration_g, rotation_dps = physical[:, :3] @ turn.T, physical[:, 3:] @ turn.T
    gravity_g = acceleration_g.mean(axis=0)
    acceleration_g = gravity_g * (1 + rng.normal(0, 0.015)) + (acceleration_g - gravity_g) * np.exp(rng.normal(0, 0.12))
    rotation_dps = rotation_dps * np.exp(rng.normal(0, 0.12))
    moved = np.concatenate([acceleration_g, rotation_dps], axis=1)
    if rng.random() < 0.5:
        count = len(moved)
        at = count - 1 - np.abs(count - 1 - np.arange(count) * np.exp(rng.normal(0, 0.06)))
        moved = np.stack([np.interp(at, np.arange(count), channel) for channel in moved.T], axis=1)
    moved[:, :3] += rng.normal(0, rng.uniform(0, 0.003), (len(moved), 3))
    moved[:, 3:] += rng.normal(0, rng.uniform(0, 0.25), (len(moved), 3))
    return np.clip(np.rint(moved / IMU_INFO.scale), -32768, 32767).astype(np.int16)


def encode(recordings: list[Recording], rng: np.random.Generator | None) -> loop.Rasters:
    """Rasters of the windows that a pipeline would cut; augmented when ``rng`` is given."""
    encoder = ImuDelta(ENCODER, IMU_INFO, WINDOW.samples)
    out = np.zeros((len(recordings), *encoder.shape), np.uint8)
    for i, recording in enumerate(recordings):
        data = recording.data if rng is None else augment(recording.data, rng)
        item = Recording(recording.name, recording.label, recording.group, data, recording.info)
        window = live_window(item, WINDOW)
        if window is None:
            raise DataError(f"{recording.name}: shorter than {WINDOW.samples} samples")
        encoder.encode(window, out[i])
    return out


def labels_of(recordings: list[Recording]) -> loop.Labels:
    return np.array([ACTIVITIES.index(recording.label) for recording in recordings], np.int64)


def train(recordings: list[Recording], *, epochs: int) -> Snn:
    rng = loop.start(SEED)
    banks = [encode(recordings, None), *(encode(recordings, rng) for _ in range(VARIANTS))]
    labels = labels_of(recordings)
    net = Snn(banks[0].shape[2], HIDDEN, READOUT, gain=0.5, dropout=0.3)

    def epoch_items(_epoch: int) -> tuple[loop.Rasters, loop.Labels]:
        order = rng.permutation(len(labels))
        which = rng.integers(0, len(banks), len(labels))
        return np.stack([banks[which[i]][i] for i in order]), labels[order]

    started = time.monotonic()

    def report(epoch: int, loss: float, accuracy: float) -> None:
        print(
            f"epoch {epoch:3} loss {loss:.3f} accuracy {accuracy:.4f} {time.monotonic() - started:5.0f} s", flush=True
        )

    loop.fit(
        net,
        epoch_items,
        lambda x: x,
        epochs=epochs,
        batch=64,
        peak_rate=2e-3,
        weight_decay=0.01,
        averaged_epochs=4,
        report=report,
    )
    return net


def card(counts: npt.NDArray[np.int64], float_accuracy: float, integer_accuracy: float) -> str:
    return f"""# activity 1.0.0

Walking, walking upstairs, walking downstairs, sitting, standing or laying, from a three-axis accelerometer and
gyroscope worn at the waist: 50 Hz, windows of 2.56 s, a decision every 1.28 s.

## Data and licence

UCI HAR (Anguita, Ghio, Oneto, Parra, Reyes-Ortiz: A Public Domain Dataset for Human Activity Recognition Using
Smartphones, ESANN 2013), a subset: {{train}} training windows and 475 test windows of other people (the official split
by person, 21 and 9 people in the full set; the subset does not name them), smartphone (Samsung Galaxy S II) on the
waist.

Licence of the data: two texts exist. The UCI repository lists the dataset under CC BY 4.0. The dataset's original
README says that its use is free with citation and that any commercial use is prohibited. Treat this model as for
research until you have cleared that. No recording is part of this bundle.

## Recipe

`python -m models.train.activity --out DIR`, seed {SEED}, {EPOCHS} epochs. Total acceleration and rotation as a
WitMotion sensor would send them (int16, 16 g and 2000 deg/s full scale), encoded by `imu_delta`; augmented by small
rotations, scale, pace and noise. One recurrent CUBA-LIF layer of {HIDDEN[0].neurons} neurons and an integrating
readout, trained with weights on the int8 grid (straight-through), reset to zero, no bias. Decays {HIDDEN[0].k_u}/4096
(synapse) and {HIDDEN[0].k_v}/4096 (membrane).

## Accuracy

On the official test part (other people than in training): float {float_accuracy:.4f}, int8 {integer_accuracy:.4f}.

Rows are the truth, columns what the int8 model said:

{export.confusion_table(list(ACTIVITIES), counts)}

## Limits and bias

- Sitting and standing differ by a few degrees at the waist only, and are confused most.
- Thirty volunteers of 19 to 48 years, one place, scripted activities: older, younger or impaired people, running,
  cycling and transitions were never seen. Every window gets one of the six labels, also when none fits.
- The sensor must sit at the waist in the same orientation as in training (x up along the body, about 1 g when upright);
  turned by more than some 15 degrees the result is not to be trusted.
- Not a medical device and no fall detector.
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.train.activity", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for network.nir, recipe.json and CARD.md")
    parser.add_argument("--data", type=Path, help="folder with har.npz; default: dataset imu_uci_har where it is found")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument(
        "--fold", type=int, help=f"judge on this block (0..{FOLDS - 1}) of the training part instead; writes nothing"
    )
    args = parser.parse_args(argv)
    try:
        run(args.data or find("imu_uci_har"), args.out, args.epochs, args.fold)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(folder: Path | None, out: Path, epochs: int, fold: int | None) -> None:
    """Train, judge, and unless ``fold`` is given, write the three files. Raises ModelError."""
    if folder is None:
        raise DataError("dataset imu_uci_har was not found; give --data or set AXOND_DATA to its parent folder")
    recordings = load(folder, "train")
    if fold is None:
        judged = load(folder, "test")
    else:
        blocks = np.arange(len(recordings)) * FOLDS // len(recordings)
        judged = [r for r, block in zip(recordings, blocks, strict=True) if block == fold]
        recordings = [r for r, block in zip(recordings, blocks, strict=True) if block != fold]
    net = train(recordings, epochs=epochs)
    network = export.integer_network(net)
    rasters, truth = encode(judged, None), labels_of(judged)
    said, largest = loop.predict_integer(network, rasters)
    float_accuracy = float((loop.predict(net, rasters) == truth).mean())
    integer_accuracy = float((said == truth).mean())
    counts = loop.confusion(truth, said, len(ACTIVITIES))
    print(f"float {float_accuracy:.4f} int8 {integer_accuracy:.4f} largest potential {largest}\n{counts}")
    export.check_headroom(largest)
    if fold is not None:
        return
    out.mkdir(parents=True, exist_ok=True)
    export.write_nir(net, out / "network.nir", dt_s=DT_S)
    export.write_recipe(
        out / "recipe.json",
        net,
        rasters.shape[1],
        name="activity",
        sensor=IMU_INFO,
        window=WINDOW,
        encoder={"kind": "imu_delta", **ENCODER.model_dump(mode="json")},
        labels=list(ACTIVITIES),
    )
    text = card(counts, float_accuracy, integer_accuracy).replace("{train}", str(len(recordings)))
    (out / "CARD.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
