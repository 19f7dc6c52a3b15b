"""``axond locate``: teach what reflects an ultrasonic burst, from the user's own recordings."""

import argparse
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.cli.command import Command, CommandError, add_json, check_writable, print_json, write_whole
from drivers import recording
from drivers.base import Misconfigured
from drivers.lib.npz import Types, read_arrays
from models.base import BadModel
from models.locate import classes, echo

MIDDLE = 1 << 15
"""The grid file has the unsigned counts of the ADC."""
FOLDS = 5
_GRID: dict[str, Types] = {
    "waveform": (np.dtype("<u2"),),
    "n_samples": (np.dtype("<u2"),),
    "dt_us": (np.dtype("<f4"),),
    "tall": (np.dtype("?"),),
    "x_cm": (np.dtype("<i2"),),
    "y_cm": (np.dtype("<i2"),),
}


@dataclass(frozen=True, slots=True)
class _Pings:
    label: str
    group: str
    """Pings of one group are alike because they were taken together; they are held out together."""
    waveforms: npt.NDArray[np.integer]
    """(n, samples)."""
    sample_hz: float


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    learn = sub.add_parser("learn", help="learn classes of objects from labelled echo waveforms")
    learn.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER|FILE.npz",
        help="a folder with a sub-folder of recordings (axond record) per class; or a grid file of waveforms",
    )
    learn.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.json", help="file to write")
    add_json(learn)


def _run(options: argparse.Namespace) -> int:
    data: Path = options.data
    out: Path = options.out
    if out.suffix != ".json":
        raise CommandError(f"{out}: expected a file FILE.json")
    check_writable(out)
    rows, labels, groups, silent = [], [], [], 0
    for pings in _folder(data) if data.is_dir() else _grid(data):
        for curve in echo.envelope(pings.waveforms, pings.sample_hz):
            found = echo.find_echoes(curve, pings.sample_hz)
            if not len(found.range_mm):
                silent += 1
                continue
            rows.append(classes.features(curve, found, pings.sample_hz))
            labels.append(pings.label)
            groups.append(pings.group)
    if not rows:
        raise CommandError(f"{data}: no ping with an echo in it; {silent} without one")
    found_rows = np.array(rows)
    write_whole(out, classes.pack(classes.learn(found_rows, labels)))
    accuracy = classes.held_out_accuracy(found_rows, labels, groups, FOLDS)
    counts = dict(sorted(Counter(labels).items()))
    groups_held = len(set(groups))
    if options.json:
        told = None if math.isnan(accuracy) else round(accuracy, 4)
        print_json({"pings": counts, "without_echo": silent, "groups": groups_held, "held_out_accuracy": told})
        return 0
    print(f"{out}: " + ", ".join(f"{count} pings of {label}" for label, count in counts.items()))
    print(f"{silent} pings without an echo were left out")
    if math.isnan(accuracy):
        print("accuracy unknown: record each class twice or more, so that whole recordings can be held out")
    else:
        print(f"named right when their recording or place was held out: {accuracy:.1%} ({groups_held} of them)")
    return 0


def _folder(folder: Path) -> Iterator[_Pings]:
    """FOLDER/LABEL/*.npz, each a recording of a sensor that gives waveforms."""
    files = sorted(folder.glob("*/*.npz"))
    if not files:
        raise CommandError(f"{folder}: no recordings LABEL/*.npz in it; make them with 'axond record SENSOR'")
    for file in files:
        try:
            taken = recording.load(file)
            sample_hz = echo.sample_rate_hz(taken.info)
        except Misconfigured as error:  # of a file that was named here, not of a configuration
            raise CommandError(str(error)) from error
        except BadModel as error:
            raise CommandError(f"{file}: {error}") from error
        waveforms = np.concatenate([packet.data for packet in taken.packets])
        if waveforms.ndim != 2 or waveforms.shape[1] != len(taken.info.channels):
            raise CommandError(f"{file}: samples of shape {waveforms.shape} are no waveforms")
        yield _Pings(file.parent.name, f"{file.parent.name}/{file.name}", waveforms, sample_hz)


def _grid(path: Path) -> Iterator[_Pings]:
    """Arrays waveform, n_samples, dt_us, tall, x_cm, y_cm of one object each at a place of a grid."""
    try:
        with path.open("rb") as file:
            arrays = read_arrays(file, _GRID)
    except OSError as error:
        raise CommandError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise CommandError(f"{path}: no grid file of waveforms: {error}") from error
    waveforms = arrays["waveform"]
    if waveforms.ndim != 2 or any(arrays[key].shape != waveforms.shape[:1] for key in _GRID if key != "waveform"):
        raise CommandError(f"{path}: waveform must be (pings, samples), and the others one number for each ping")
    for index, samples in enumerate(arrays["n_samples"].tolist()):
        dt_us = float(arrays["dt_us"][index])
        if not 16 <= samples <= waveforms.shape[1] or not 0.1 < dt_us < 1e3:
            raise CommandError(f"{path}: ping {index} has {samples} samples {dt_us:g} us apart, which cannot be")
        yield _Pings(
            "tall" if arrays["tall"][index] else "short",
            f"{arrays['x_cm'][index]}/{arrays['y_cm'][index]} cm",
            waveforms[index : index + 1, :samples].astype(np.int32) - MIDDLE,
            1e6 / dt_us,
        )


COMMAND = Command(
    "locate",
    "teach what the echoes of an ultrasonic sensor come from",
    """Teach classes of objects from raw echoes, for a pipeline with "locate" in the place of a model.

Record some pings of each kind of object, at different places, a recording for each place:

  axond record echo0 --seconds 10 -o echoes/wall/1.npz
  axond record echo0 --seconds 10 -o echoes/person/1.npz
  axond locate learn --data echoes -o classes.json

and name the file in the configuration:

  [pipelines.what]
  sensors = ["echo0"]
  locate = { classes = "classes.json" }

The accuracy that is printed is of pings whose whole recording was held out. A grid file has the arrays waveform,
n_samples, dt_us, tall, x_cm and y_cm; there the place is held out.
""",
    _configure,
    _run,
)
