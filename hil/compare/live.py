"""What another machine's live demo decided: is it, window by window, what this machine decides on the same samples?

    python -m hil.compare.live save FOLDER      on the other machine: what its demo says and does, as two recordings

A live sensor is opened at some sample of its stimulus and its windows begin from there, so two demos never have the
same ones. But each result says when its window was captured: from the time between results follows which samples of the
stimulus it saw, and what this machine makes of just these must have the same label, score and number of spikes. What
is fused with the camera is not compared: its events lie in the windows as the clock of that moment placed them.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.packet import Packet
from hil.demo.command import STIMULUS_S
from hil.demo.stimuli import Stimulus, body_motion, digits
from models.base import Backend, Window
from models.bundle import Bundle
from models.datasets.recording import IMU_INFO, audio_info
from models.registry import make_backend, make_encoder, open_bundle
from models.select import softmax
from models.window import ONSET_FRAME_MS, Windower

SEED = 1
"""The demo's."""
MODELS = {"digits": "spoken-digits", "activity": "activity"}
LEAD_S = 30.0
"""A demo's sensors play for so long at most before the agent listens."""
AGREES_S = 0.03
"""A result's time is that of the sensor's clock as the agent knew it then."""
ANCHORS = 3
"""One of the first so many results is right, if any is."""
NS_PER_S = 1_000_000_000

Decision = tuple[str, float, int]
"""Label, score as stored, input spikes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one pipeline."""

    same: int
    """Results that this machine gives too, on the samples of that time."""
    different: list[Mapping[str, Any]]
    """Results that it does not, as stored."""
    filled: int
    """Results with samples that were lost and made up; they are not compared."""


def save(folder: Path) -> None:
    """The demo's stimuli as this machine makes them; another one's voices or recordings may be others."""
    for name, stimulus in (("digits", digits(STIMULUS_S, SEED)), ("activity", body_motion(STIMULUS_S, SEED))):
        np.savez(folder / f"{name}.npz", data=stimulus.data, rate_hz=stimulus.rate_hz)


def load(path: Path) -> Stimulus:
    """A stimulus that was saved, without its truth."""
    with np.load(path) as parts:
        return Stimulus(str(path), parts["data"], float(parts["rate_hz"]), ())


def check(pipeline: str, stimulus: Stimulus, rows: Sequence[Mapping[str, Any]]) -> Verdict:
    """``rows``: all results of ``digits`` or ``activity`` of one demo, as the hub stores them."""
    whole = sorted((row for row in rows if not row["lost"]), key=lambda row: int(row["t_us"]))
    bundle = open_bundle(MODELS[pipeline], [])
    found: set[int] = set()
    with closing(make_backend("onnx")) as backend:
        backend.load(bundle)
        listener = _Listener(pipeline, bundle, backend, stimulus)
        for anchor in range(min(ANCHORS, len(whole))):
            found = max(found, listener.agreed(whole, anchor), key=len)
            if 2 * len(found) > len(whole):
                break
    different = [row for i, row in enumerate(whole) if i not in found]
    return Verdict(len(found), different, len(rows) - len(whole))


class _Listener:
    """What a model makes of windows of a stimulus, wherever they begin."""

    def __init__(self, pipeline: str, bundle: Bundle, backend: Backend, stimulus: Stimulus) -> None:
        """``backend`` has loaded ``bundle``."""
        self._info = IMU_INFO if pipeline == "activity" else audio_info(int(stimulus.rate_hz))
        self._spec = bundle.windows
        self._labels, self._temperature = bundle.manifest.labels, bundle.manifest.temperature
        self._encoder, self._backend = make_encoder(bundle, self._info), backend
        self._raster = np.zeros(self._encoder.shape, np.uint8)
        self._rate_hz, self._data = stimulus.rate_hz, stimulus.data
        self._dt_ns = round(NS_PER_S / stimulus.rate_hz)
        self._near = round(AGREES_S * stimulus.rate_hz)
        onset = self._spec.mode == "onset"
        self._step = round(stimulus.rate_hz * ONSET_FRAME_MS / 1e3) if onset else self._spec.hop
        """Windows that follow each other without a loss are so many samples apart, or a multiple."""
        windows = Windower(self._spec, self._info).push(Packet("live", 0, 0, self._dt_ns, stimulus.data))
        self._usual = np.array([window.t0_ns // self._dt_ns for window in windows])
        """Where one begins, more or less: by less than a step."""
        self._known: dict[int, Decision | None] = {}

    def agreed(self, rows: Sequence[Mapping[str, Any]], anchor: int) -> set[int]:
        """Which of the results this machine gives too, if ``rows[anchor]`` is one of these; their indices.

        Empty unless these are most: a demo began at one sample.
        """
        at = np.array([(int(row["t_us"]) - int(rows[anchor]["t_us"])) * self._rate_hz / 1e6 for row in rows])
        last = round(LEAD_S * self._rate_hz + at[-1] - at[0])
        for usual in self._usual[self._usual <= last]:
            apart = np.abs((usual + at)[:, None] - self._usual).min(axis=1)
            if np.count_nonzero(apart <= self._near + self._step) * 2 < len(rows):
                continue
            reach = self._near + self._step
            for begin in range(max(0, usual - reach), usual + reach + 1):
                if self._decide(begin) != _stored(rows[anchor]):
                    continue
                found = {i for i, row in enumerate(rows) if self._is_near(row, begin, begin + round(at[i]))}
                if 2 * len(found) > len(rows):
                    return found
        return set()

    def _is_near(self, row: Mapping[str, Any], begin: int, expected: int) -> bool:
        """Whether a window that begins there or nearby gives this result; tries the likely ones first."""
        near = range(max(0, expected - self._near), expected + self._near + 1)
        likely = sorted(near, key=lambda start: ((start - begin) % self._step != 0, abs(start - expected)))
        return any(self._decide(start) == _stored(row) for start in likely)

    def _decide(self, start: int) -> Decision | None:
        """None behind the end."""
        if start not in self._known:
            data = self._data[start : start + self._spec.samples]
            self._known[start] = self._infer(start, data) if len(data) == self._spec.samples else None
        return self._known[start]

    def _infer(self, start: int, data: npt.NDArray[np.int16]) -> Decision:
        self._encoder.encode(Window(start * self._dt_ns, self._dt_ns, data, self._info), self._raster)
        potentials = self._backend.infer(self._raster).sum(axis=0)
        scores = softmax(potentials, self._temperature)
        best = int(potentials.argmax())
        return self._labels[best], round(float(scores[best]), 4), int(np.count_nonzero(self._raster))


def _stored(row: Mapping[str, Any]) -> Decision:
    return str(row["label"]), float(row["score"]), int(row["spikes"])


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "save":
        sys.exit("usage: python -m hil.compare.live save FOLDER")
    save(Path(sys.argv[2]))
