"""Train the shipped model ``pump-condition``: how many pumps run, from pressure and vibration of a pipeline.

``python -m models.train.pump_condition --out DIR`` writes what ``axond model build DIR`` takes.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.base import Window
from models.datasets.load import load, required
from models.datasets.pumps import PUMPS_INFO
from models.datasets.recording import DataError, Recording, live_windows
from models.encoders.levels import Levels, LevelsConfig
from models.train import export, finish, loop
from models.train.command import guarded, parser
from models.train.lif import LayerSpec, Snn
from models.window import WindowSpec

DATASET = "vib_pipeline_pumps"
WINDOW = WindowSpec(mode="time", samples=100, hop=10)
LABELS = ("1_pump", "2_pumps", "3_pumps", "4_pumps", "5_pumps")
PRESSURE = slice(0, 2)
VIBRATION = slice(2, 6)
"""Columns of PUMPS_INFO."""
OUTER_PERCENTILES = (1, 99)
MARGIN = 0.08
"""So that 0, what a dead sensor reads, is outside every channel's range."""
CELLS = 24
STEPS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.1)
"""The first is about one digit of the pressure: where it is silent, pressure is stuck."""
POOL = 2
HIDDEN = [LayerSpec(neurons=96, k_u=2000, k_v=3400, limit=0.5, recurrent=True)]
READOUT = LayerSpec(neurons=len(LABELS), k_u=3000, k_v=3900, limit=1.0)
DT_S = POOL / PUMPS_INFO.rate_hz
SEED = 1
EPOCHS = 14
PRESSURE_FAULTS = (0.25, 0.1, 0.1)
"""Parts of the windows of training in which pressure is dead, stuck, or drifting."""
ANY_DEAD = 0.1
"""Part of the windows in which a given sensor is dead."""
VIBRATION_DEAD = 0.05
"""Part of them in which all vibration is dead, so that pressure alone decides as well."""
MOST_DRIFT_MPA = 0.06
"""A pump more is 0.19 MPa more."""
VARIANTS = 8
"""Augmented copies of every training window; each epoch takes one of them at random."""
VALIDATION_PART = 0.25
TRAINING_HOP = 5
PERIOD_NS = round(1e9 / PUMPS_INFO.rate_hz)

Floats = npt.NDArray[np.float64]
Windows = tuple[Floats, loop.Labels]
"""(n, samples, channels) in units, and (n,) classes."""


def encoder_settings(recordings: list[Recording]) -> LevelsConfig:
    """The ranges of the training data, without its outliers."""
    low, high = np.percentile(np.concatenate([physical(r.data) for r in recordings]), OUTER_PERCENTILES, axis=0)
    return LevelsConfig(
        rate_hz=PUMPS_INFO.rate_hz,
        channels=PUMPS_INFO.channels,
        units=PUMPS_INFO.units,
        low=tuple(np.round(low, 3).tolist()),
        high=tuple(np.round(high, 3).tolist()),
        margin=MARGIN,
        cells=CELLS,
        steps=STEPS,
        pool=POOL,
    )


def physical(data: npt.NDArray[np.int32]) -> Floats:
    values: Floats = data * np.asarray(PUMPS_INFO.scale)
    return values


def windows(recordings: list[Recording], hop: int = WINDOW.hop) -> Windows:
    """Those that a pipeline would cut, in units. Raises DataError."""
    spec = replace(WINDOW, hop=hop)
    cut = [pair for recording in recordings for pair in live_windows(recording, spec)]
    if not cut:
        raise DataError(f"no run is as long as a window, {WINDOW.samples} samples")
    data = np.stack([physical(window.data.astype(np.int32)) for window, _ in cut])
    return data, np.array([LABELS.index(label) for _, label in cut], np.int64)


def augment(data: Floats, rng: np.random.Generator) -> Floats:
    """Another day: pressure dead, stuck or drifting; vibration weaker, stronger or noisier; any sensor dead."""
    data, n = data.copy(), len(data)
    dead, stuck, drifts = rng.multinomial(1, (*PRESSURE_FAULTS, 1 - sum(PRESSURE_FAULTS)), n).T.astype(np.bool_)[:3]
    drift_mpa = np.where(drifts, rng.uniform(-MOST_DRIFT_MPA, MOST_DRIFT_MPA, n), rng.normal(0, 0.004, n))
    data[:, :, PRESSURE] += drift_mpa[:, None, None]
    data[dead, :, PRESSURE] = 0
    data[stuck, :, PRESSURE] = rng.uniform(0.1, 1.0, (int(stuck.sum()), 1, 1))
    data[:, :, VIBRATION] *= np.exp(rng.normal(0, 0.1, (n, 1, 4)))
    data[:, :, VIBRATION] += rng.normal(0, 0.03, (n, 1, 4))
    data[:, :, VIBRATION] += rng.normal(0, 1, (n, data.shape[1], 4)) * rng.uniform(0, 0.02, (n, 1, 1))
    data[rng.random(n) < VIBRATION_DEAD, :, VIBRATION] = 0
    data *= rng.random((n, 1, data.shape[2])) > ANY_DEAD
    return data


def encode(data: Floats, settings: LevelsConfig) -> loop.Rasters:
    encoder = Levels(settings, PUMPS_INFO, WINDOW.samples)
    out = np.zeros((len(data), *encoder.shape), np.uint8)
    steps = np.rint(data / PUMPS_INFO.scale).astype(np.int32)
    for i, item in enumerate(steps):
        encoder.encode(Window(0, PERIOD_NS, item, PUMPS_INFO), out[i])
    return out


def train(seen: Windows, settings: LevelsConfig, *, epochs: int) -> Snn:
    rng = loop.start(SEED)
    data, labels = seen
    banks = [encode(augment(data, rng), settings) for _ in range(VARIANTS)]
    net = Snn(banks[0].shape[2], HIDDEN, READOUT, gain=0.5, dropout=0.3)

    def epoch_items(_epoch: int) -> tuple[loop.Rasters, loop.Labels]:
        order = rng.permutation(len(labels))
        which = rng.integers(0, len(banks), len(labels))
        return np.stack([banks[which[i]][i] for i in order]), labels[order]

    def report(epoch: int, loss: float, accuracy: float) -> None:
        print(f"epoch {epoch:3} loss {loss:.3f} accuracy {accuracy:.4f}", flush=True)

    loop.fit(
        net,
        epoch_items,
        lambda x: x,
        epochs=epochs,
        batch=64,
        peak_rate=3e-3,
        weight_decay=0.01,
        averaged_epochs=4,
        report=report,
    )
    return net


def spoiled(data: Floats) -> dict[str, Floats]:
    """The same windows with faults that must not blind the model."""

    def with_pressure(change: Callable[[Floats], Floats | float]) -> Floats:
        copy = data.copy()
        copy[:, :, PRESSURE] = change(copy[:, :, PRESSURE])
        return copy

    without_vibration = data.copy()
    without_vibration[:, :, VIBRATION] = 0
    return {
        "both pressure sensors dead (reading 0)": with_pressure(lambda _: 0.0),
        "pressure stuck at that of three pumps (0.56 MPa)": with_pressure(lambda _: 0.56),
        "pressure drifted by +0.03 MPa": with_pressure(lambda pressure: pressure + 0.03),
        "pressure drifted by -0.03 MPa": with_pressure(lambda pressure: pressure - 0.03),
        "pressure drifted by +0.09 MPa, half a pump": with_pressure(lambda pressure: pressure + 0.09),
        "all vibration sensors dead": without_vibration,
    }


def when_spoiled(net: Snn, judged: Windows, settings: LevelsConfig) -> dict[str, float]:
    """Accuracy of the int8 network by fault."""
    network, (data, labels) = export.integer_network(net), judged
    found = {}
    for fault, bad in spoiled(data).items():
        found[fault] = float((loop.predict_integer(network, encode(bad, settings))[0] == labels).mean())
        print(f"{fault}: int8 {found[fault]:.4f}", flush=True)
    return found


def texts(seen: int, by_fault: dict[str, float]) -> finish.Texts:
    """The author's parts of the card."""
    faults = "\n".join(f"- {fault}: {accuracy:.3f}" for fault, accuracy in by_fault.items())
    return finish.Texts(
        about=f"""How many of five pumps run, from two pressure and four vibration sensors of a pipeline: 10 Hz,
windows of {WINDOW.samples / PUMPS_INFO.rate_hz:g} s, a decision every second. Any board that prints lines of numbers
delivers them: driver `imu.csv` with `family = "vibration"`.""",
        data=f"""WHUTpipelines (Bin Wang, Wuhan University of Technology; paper doi 10.1016/j.measurement.2026.121184),
GitHub `WHUTBIN/WHUTpipelines-dataset`, MIT licence (stated in its README): a test bench with a DN40 pipeline, one run
of about ten minutes for each number of pumps. Trained on {seen} overlapping windows of the first four fifths of each
run, judged on the last fifth (a test of drift). Vibration is in the bench's own unit.""",
        how=f"""`make train-pump-condition` (seed {SEED}, {EPOCHS} epochs). Encoder `levels`: a population code of each
channel's level over its range in the training data, and crossings of its changes. In training, pressure is dead, stuck
or drifting by up to {MOST_DRIFT_MPA:g} MPa in {sum(PRESSURE_FAULTS):.0%} of the windows, all vibration is dead in
{VIBRATION_DEAD:.0%}, each sensor in {ANY_DEAD:.0%}, and vibration has another gain, offset and noise. One recurrent
CUBA-LIF layer of {HIDDEN[0].neurons} neurons and an integrating readout, weights on the int8 grid (straight-through),
reset to zero, no bias.""",
        limits="""- Pressure alone gives the number of pumps away (0.18 to 0.19 MPa for each); vibration alone tells
  what is above, at dead pressure. Three, four and five pumps vibrate much alike, in beats of 20 to 60 s.
- One run per condition on one bench within two hours: between days, after repair or on another pipeline the model has
  to be trained anew. Ranges of the channels are part of the bundle.
- There is no label for a bench at rest or for a fault; every window gets one of the five.""",
        more=f"\nWith a fault in the data, int8:\n\n{faults}\n",
    )


def main(argv: list[str] | None = None) -> int:
    options = parser(
        "pump_condition",
        __doc__ or "",
        "folder with pumps<N>.csv; default: vib_pipeline_pumps",
        EPOCHS,
    )
    options.add_argument(
        "--validate", action="store_true", help="judge on the last quarter of the training part instead; writes nothing"
    )
    args = options.parse_args(argv)
    return guarded(lambda: run(required(DATASET, args.data), args.out, args.epochs, args.validate))


def run(folder: Path, out: Path, epochs: int, validate: bool) -> None:
    """Train, judge, and unless ``validate`` is given, write. Raises ModelError."""
    started_s = time.monotonic()
    runs = load(folder, "train")
    later = load(folder, "test")
    if validate:
        later = [part(r, 1 - VALIDATION_PART, 1.0) for r in runs]
        runs = [part(r, 0.0, 1 - VALIDATION_PART) for r in runs]
    settings = encoder_settings(runs)
    seen, judged = windows(runs, TRAINING_HOP), windows(later)
    net = train(seen, settings, epochs=epochs)
    test = finish.Rasters(encode(judged[0], settings), judged[1])
    if validate:
        finish.judge(net, test, len(LABELS))
        when_spoiled(net, judged, settings)
        return
    recipe = finish.Recipe(
        name="pump-condition",
        sensor=PUMPS_INFO,
        window=WINDOW,
        encoder={"kind": "levels", **settings.model_dump(mode="json")},
        labels=list(LABELS),
        dt_s=DT_S,
    )
    words = texts(len(seen[1]), when_spoiled(net, judged, settings))
    finish.finish(net, recipe, finish.Rasters(encode(seen[0], settings), seen[1]), test, out, words, started_s)


def part(run: Recording, begin: float, end: float) -> Recording:
    """A stretch of a run, in parts of its length."""
    chosen = slice(round(begin * len(run.data)), round(end * len(run.data)))
    return replace(run, data=run.data[chosen], truth=None if run.truth is None else run.truth[chosen])


if __name__ == "__main__":
    sys.exit(main())
