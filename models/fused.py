"""Several sensors, one network: what each gives of a joint window becomes its part of the raster, and a quality.

The quality of an input in a window is ``coverage * plausibility``, and that of a result the mean over the inputs:

- coverage: part of the window for which there are data; what was lost, late, or never came lacks. Of events, which come
  only when something moves: 0 without any, else the part of the time in which the camera was there, and of the events
  those that were not lost.
- plausibility: 1 while the input spikes are as many as in the training (``rate_range`` of the manifest, its lower end
  times the coverage), falling with the logarithm to 0 at half the fewest and twice the most; 0 for a microphone or IMU
  that gives one value throughout, and for data that the encoder refuses.

An input of plausibility 0 is set aside: to the network it is as absent as an unplugged one, which it was trained for.
"""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.packet import Packet, SensorInfo
from models.base import Backend, BadModel, Inference, Raster, Window
from models.bundle import MANIFEST, Bundle, Manifest
from models.joint import Joint, JointWindower
from models.registry import part_encoder
from models.select import softmax
from models.track import Share
from models.window_events import empty_window

STEPS_AGREE = 0.1
"""Numbers of time steps of the inputs may differ by so much."""
POOR = 0.5
"""An input below this quality ..."""
POOR_WINDOWS = 3
"""... in so many windows in a row is in trouble, and does not keep the others from beginning windows."""
RECENT = 8
"""The quality of a pipeline is the mean over so many results."""
NEVER_CONSTANT = ("audio", "imu")


@dataclass(frozen=True, slots=True)
class PartQuality:
    """How good one input's part of a window is."""

    coverage: float
    plausibility: float
    spikes: int
    problem: str
    """What is wrong, in a few words; empty if nothing is."""

    @property
    def value(self) -> float:
        """0..1."""
        return self.coverage * self.plausibility


@dataclass(slots=True)
class InputState:
    """What is known of one input of a fused pipeline. Its thread writes, status readers read single fields."""

    name: str
    quality: float | None = None
    """In the latest window."""
    poor: int = 0
    """Windows in a row in which it was poor."""
    trouble: str | None = None
    """What was wrong when it had been poor for longer than a moment; None while it is well."""
    late: int = 0
    """Samples or events that came after their window had been decided; of a flood, those too many to keep too."""


class FusedEncoder:
    """Shares of a joint window to one raster; the features of each input in order. Pure."""

    def __init__(self, manifest: Manifest, infos: Sequence[SensorInfo], where: str) -> None:
        """``infos``: of the sensors, in the order of the inputs. Raises BadModel when one does not fit."""
        parts = manifest.parts
        if len(infos) != len(parts):
            raise BadModel(f"model {manifest.name!r} takes {len(parts)} sensors, not {len(infos)}")
        self._parts = parts
        self._encoders = [
            part_encoder(manifest.name, part, info, where) for part, info in zip(parts, infos, strict=True)
        ]
        steps = [encoder.shape[0] for encoder in self._encoders]
        if min(steps) < (1 - STEPS_AGREE) * max(steps):
            shown = ", ".join(f"{part.name} {count}" for part, count in zip(parts, steps, strict=True))
            raise BadModel(f"{where}: inputs: their encoders give too different numbers of time steps ({shown})")
        stops = np.cumsum([encoder.shape[1] for encoder in self._encoders]).tolist()
        self.columns = [slice(first, stop) for first, stop in zip([0, *stops], stops, strict=False)]
        """The features of each input."""
        self.shape = (max(steps), int(stops[-1]))
        self._own = [np.zeros(encoder.shape, np.uint8) for encoder in self._encoders]

    def encode(self, shares: Sequence[Share], out: Raster) -> list[PartQuality]:
        """Write the spikes into ``out`` (uint8 of ``shape``; every cell is written, 0 or 1); how good each part is."""
        out[:] = 0
        found = []
        for i, share in enumerate(shares):
            quality = self._encode(i, share)
            if quality.value > 0:
                own = self._own[i]
                out[: len(own), self.columns[i]] = own
            found.append(quality)
        return found

    def encode_windows(self, windows: Sequence[Window | None], out: Raster) -> None:
        """The same for whole windows, one of each input, however many spikes they give; None for one that is absent."""
        out[:] = 0
        for encoder, own, columns, window in zip(self._encoders, self._own, self.columns, windows, strict=True):
            if window is not None:
                encoder.encode(window, own)
                out[: len(own), columns] = own

    def _encode(self, i: int, share: Share) -> PartQuality:
        window = share.window
        if window is None:
            return PartQuality(0.0, 1.0, 0, "no data")
        own = self._own[i]
        try:
            self._encoders[i].encode(window, own)
        except BadModel as error:
            # Data that cannot be: the others go on.
            return PartQuality(share.coverage, 0.0, 0, str(error))
        if len(share.known):
            first = np.arange(len(own)) * len(share.known) // len(own)
            own[np.add.reduceat(share.known, first, dtype=np.int64) == 0] = 0
        spikes = int(np.count_nonzero(own))
        if window.info.family in NEVER_CONSTANT and bool((window.data == window.data[0]).all()):
            return PartQuality(share.coverage, 0.0, spikes, "the same value throughout")
        wanted = self._parts[i].rate_range
        plausibility = 1.0 if wanted is None else _plausibility(spikes, wanted[0] * share.coverage, wanted[1])
        problem = "" if share.coverage > POOR else f"data for {100 * share.coverage:.0f} % of the time"
        if wanted is not None and plausibility <= POOR:
            problem = f"{spikes} input spikes in a window, expected {wanted[0]:g} to {wanted[1]:g}"
        return PartQuality(share.coverage, plausibility, spikes, problem)


def _plausibility(spikes: int, fewest: float, most: float) -> float:
    if spikes < fewest:
        return max(0.0, 1 - math.log2(fewest / spikes)) if spikes else 0.0
    return max(0.0, 1 - math.log2(spikes / most)) if spikes > most > 0 else float(spikes <= most)


class FusedSession:
    """Packets of several sensors in, inferences out; one thread calls it. Each window starts from rest."""

    def __init__(self, bundle: Bundle, backend: Backend, infos: Sequence[SensorInfo]) -> None:
        """``backend`` has loaded ``bundle``; ``infos`` in the order of its inputs. Raises BadModel."""
        manifest = bundle.manifest
        self._encoder = make_fused_encoder(bundle, infos)
        self._windower = JointWindower(manifest, infos)
        self._infos = tuple(infos)
        self._raster = np.zeros(self._encoder.shape, np.uint8)
        self._backend = backend
        self._manifest = manifest
        self._recent: deque[float] = deque(maxlen=RECENT)
        self.inputs = tuple(InputState(part.name) for part in manifest.parts)

    @property
    def quality(self) -> float | None:
        """Mean over the latest results; None before the first."""
        return round(sum(self._recent) / len(self._recent), 3) if self._recent else None

    @property
    def given_up_samples(self) -> int:
        """Samples and events that came after their window had been decided."""
        return sum(state.late for state in self.inputs)

    def warm_up(self) -> None:
        """Go through everything once, so that the first real window does not pay for first times."""
        windows = [
            empty_window(part.window, info) if part.window else None
            for part, info in zip(self._manifest.parts, self._infos, strict=True)
        ]
        self._encoder.encode_windows(windows, self._raster)
        self._backend.infer(self._raster)

    def push(self, index: int, packet: Packet) -> None:
        """Take a packet of the sensor ``index``. Raises BadModel when it is not what its info says."""
        self._windower.push(index, packet)
        self.inputs[index].late = self._windower.late[index]

    def due_ns(self) -> int | None:
        """CLOCK_MONOTONIC when ``tick`` has something to do though nothing was pushed; None for never."""
        return self._windower.due_ns()

    def tick(self, now_ns: int, live: Sequence[bool]) -> Iterator[Inference]:
        """The inferences of the windows that are over at CLOCK_MONOTONIC ``now_ns``.

        A sensor that is not ``live`` is not waited for.
        """
        for joint in self._windower.due(now_ns, live):
            parts = self._encoder.encode(joint.shares, self._raster)
            encoded_ns = time.monotonic_ns()
            potentials = self._backend.infer(self._raster).sum(axis=0)
            inferred_ns = time.monotonic_ns()
            self._judge(parts, live)
            yield self._inference(joint, parts, potentials, (encoded_ns, inferred_ns))

    def _judge(self, parts: Sequence[PartQuality], live: Sequence[bool]) -> None:
        for i, (state, part) in enumerate(zip(self.inputs, parts, strict=True)):
            state.quality = round(part.value, 3)
            # Of one that is not live that is known already, and it is not to be blamed when it comes back.
            state.poor = state.poor + 1 if live[i] and part.value < POOR else 0
            if state.poor < POOR_WINDOWS:
                state.trouble = None
            elif state.trouble is None:
                state.trouble = part.problem
            self._windower.trusted[i] = state.trouble is None
        self._recent.append(mean_quality(parts))

    def _inference(
        self,
        joint: Joint,
        parts: Sequence[PartQuality],
        potentials: npt.NDArray[np.int64],
        times_ns: tuple[int, int],
    ) -> Inference:
        scores = softmax(potentials, self._manifest.temperature)
        best = int(potentials.argmax())
        return Inference(
            t0_ns=joint.t0_ns,
            last_ns=joint.end_ns,
            end_ns=joint.end_ns,
            label=self._manifest.labels[best],
            score=round(float(scores[best]), 4),
            lost=sum(share.lost for share in joint.shares),
            input_spikes=int(np.count_nonzero(self._raster)),
            encoded_ns=times_ns[0],
            inferred_ns=times_ns[1],
            quality=round(mean_quality(parts), 3),
            missing=missing(self._manifest, parts),
        )


def mean_quality(parts: Sequence[PartQuality]) -> float:
    """Of a result: one of two dead is 0.5."""
    return sum(part.value for part in parts) / len(parts)


def missing(manifest: Manifest, parts: Sequence[PartQuality]) -> tuple[str, ...]:
    """The inputs whose part of the raster is empty."""
    return tuple(one.name for one, part in zip(manifest.parts, parts, strict=True) if part.value == 0)


def make_fused_encoder(bundle: Bundle, infos: Sequence[SensorInfo]) -> FusedEncoder:
    """The encoder of a fused bundle. Raises BadModel when a sensor or the network does not fit."""
    where = str(bundle.path / MANIFEST)
    encoder = FusedEncoder(bundle.manifest, infos, where)
    if encoder.shape[1] != bundle.network.features:
        raise BadModel(
            f"{where}: the encoders give {encoder.shape[1]} features, the network takes {bundle.network.features}"
        )
    return encoder
