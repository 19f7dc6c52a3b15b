"""What the CNNs are trained on: the windows that the spiking models are trained on, distorted by the same functions.

``python -m hil.compare.features NAME OUT.npz`` writes ``x_train`` (n, rows, columns, channels), ``y_train`` and
``classes``. Needs the extra ``train``.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hil.compare.tasks import TASKS
from models.base import ModelError, Window
from models.bundle import Bundle
from models.datasets.load import load, required
from models.datasets.recording import Recording, live_window
from models.registry import open_bundle

COPIES = 8
"""Distorted copies of each window, beside the window itself."""
SEED = 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hil.compare.features", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(TASKS))
    parser.add_argument("out", type=Path, metavar="OUT.npz")
    options = parser.parse_args(argv)
    try:
        write(options.name, options.out)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def write(name: str, out: Path) -> None:
    """Raises DataError when the recordings are not here."""
    task = TASKS[name]
    folder = required(task.dataset)
    bundle, rng = open_bundle(name, []), np.random.default_rng(SEED)
    features, labels = [], []
    for recording in load(folder, "train"):
        for window in windows(name, bundle, recording, rng):
            features.append(task.front(window).astype(np.float16))
            labels.append(bundle.manifest.labels.index(recording.label))
    np.savez(out, x_train=np.stack(features), y_train=np.array(labels), classes=len(bundle.manifest.labels))
    print(f"{name}: {len(labels)} windows of {features[0].shape}")


def windows(name: str, bundle: Bundle, recording: Recording, rng: np.random.Generator) -> Iterator[Window]:
    """The window of ``recording`` and distorted copies, those that begin."""
    window = live_window(recording, bundle.windows)
    if window is None:
        return
    yield window
    for _ in range(COPIES):
        other = _copy(name, recording, window, rng)
        if other is not None:
            yield other


def _copy(name: str, recording: Recording, window: Window, rng: np.random.Generator) -> Window | None:
    if name == "spoken-digits":
        from models.train.spoken_digits import heard

        return heard(recording.data, rng)
    if name == "activity":
        from models.train.activity import augment

        return replace(window, data=augment(window.data.astype(np.int16), rng))
    if name == "sound-events":
        from models.train.sound_events import distort as distort_sound

        wave = distort_sound(recording.data[:, 0] / 32768, rng)
        return replace(window, data=np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)[:, None])
    from models.train.augment_events import Spread, distort

    return replace(window, data=distort(window.data, 34, 34, rng, Spread()))


if __name__ == "__main__":
    sys.exit(main())
