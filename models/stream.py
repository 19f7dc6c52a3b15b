"""Packets in, an inference for every time step out: the network goes on without windows (state policy ``carry``)."""

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from drivers.packet import Packet, SensorInfo
from models.base import Backend, BadModel, Inference, Outputs, Raster, State, Steps
from models.bundle import Bundle
from models.registry import make_stream_encoder
from models.select import softmax
from models.session import Session

MAX_PAUSE_S = 10.0
"""Through a longer gap, or stop of the program, the state is not carried: the network starts from rest."""
PAUSE_STEPS = 256
"""A pause is stepped in parts of so many."""


class Stream:
    """One stream of decisions; one thread calls it. The decision at a step is over the last ``readout_steps`` steps."""

    def __init__(self, bundle: Bundle, backend: Backend, info: SensorInfo) -> None:
        """``backend`` has loaded ``bundle``. Raises BadModel when the sensor does not fit."""
        self._encoder = make_stream_encoder(bundle, info)
        self._backend = backend
        self._labels = bundle.manifest.labels
        self._temperature = bundle.manifest.temperature
        self._neurons = bundle.network.neurons
        self._readout = bundle.manifest.readout_steps
        self.given_up_samples = 0
        """Samples of begun steps that a long gap ended before they were whole."""
        self._lost = 0
        """Samples missing in steps that no inference has told of yet."""
        self._rest()
        self._end_ns: int | None = None

    def _rest(self) -> None:
        self._state = State.rest(self._neurons)
        self._recent: npt.NDArray[np.int64] = np.zeros((0, len(self._labels)), np.int64)

    def warm_up(self) -> None:
        """Go through everything once, so that the first real step does not pay for first times."""
        self._backend.infer(np.zeros((1, self._encoder.features), np.uint8))

    def push(self, packet: Packet) -> Iterator[Inference]:
        """Take a packet; yield an inference for each time step that it completes."""
        steps = self._encoder.push(packet)
        encoded_ns = time.monotonic_ns()
        self._lost += steps.lost
        self.given_up_samples += steps.given_up
        if steps.fresh:
            self._bridge(steps.t0_ns)
            # The next gap may come before the first step is whole.
            self._end_ns = steps.t0_ns
        if not len(steps.raster):
            return
        outputs = self._backend.infer(steps.raster, self._state)
        inferred_ns = time.monotonic_ns()
        self._end_ns = steps.t0_ns + len(steps.raster) * self._encoder.step_ns
        yield from self._decisions(steps, self._sums(outputs), encoded_ns, inferred_ns)

    def _bridge(self, begin_ns: int) -> None:
        """Up to ``begin_ns`` nothing was heard: the state decays, or is given up after a long pause."""
        pause_ns = None if self._end_ns is None else begin_ns - self._end_ns
        if pause_ns is None or not 0 <= pause_ns <= MAX_PAUSE_S * 1e9:
            self._rest()
            return
        silence: Raster = np.zeros((PAUSE_STEPS, self._encoder.features), np.uint8)
        left = round(pause_ns / self._encoder.step_ns)
        while left:
            count = min(left, PAUSE_STEPS)
            self._sums(self._backend.infer(silence[:count], self._state))
            left -= count

    def _sums(self, outputs: Outputs) -> npt.NDArray[np.int64]:
        """(steps, classes) sums over the last ``readout_steps`` steps, at each step."""
        known = np.concatenate([self._recent, outputs.astype(np.int64)])
        total = np.concatenate([np.zeros((1, known.shape[1]), np.int64), np.cumsum(known, axis=0)])
        end = np.arange(len(self._recent), len(known)) + 1
        self._recent = known[max(0, len(known) - self._readout + 1) :]
        sums: npt.NDArray[np.int64] = total[end] - total[np.maximum(end - self._readout, 0)]
        return sums

    def _decisions(
        self, steps: Steps, sums: npt.NDArray[np.int64], encoded_ns: int, inferred_ns: int
    ) -> Iterator[Inference]:
        spikes = np.count_nonzero(steps.raster, axis=1).tolist()
        lost, self._lost = self._lost, 0
        step_ns = self._encoder.step_ns
        for i, best in enumerate(sums.argmax(axis=1).tolist()):
            t0_ns = steps.t0_ns + i * step_ns
            yield Inference(
                t0_ns=t0_ns,
                last_ns=t0_ns + step_ns,
                end_ns=t0_ns + step_ns,
                label=self._labels[best],
                score=round(float(softmax(sums[i], self._temperature)[best]), 4),
                lost=lost if i == 0 else 0,
                input_spikes=spikes[i],
                encoded_ns=encoded_ns,
                inferred_ns=inferred_ns,
            )

    def checkpoint(self) -> dict[str, npt.NDArray[np.generic]]:
        """What a stream of the same bundle needs to go on from here."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "end_ns": np.array([-1 if self._end_ns is None else self._end_ns], np.int64),
            "recent": self._recent,
        }
        return arrays | {f"state{i}": array for i, array in enumerate(self._state.arrays())}

    def resume(self, saved: dict[str, npt.NDArray[np.generic]]) -> None:
        """Go on from what ``checkpoint`` gave, in the same boot. Raises BadModel when it is of another network."""
        mine = self.checkpoint()
        odd = [
            name
            for name, array in mine.items()
            if name not in saved
            or saved[name].dtype != array.dtype
            or (saved[name].shape != array.shape if name != "recent" else saved[name].shape[1:] != array.shape[1:])
        ]
        if odd or len(saved["recent"]) >= max(self._readout, 1):
            raise BadModel(f"a checkpoint of another network: its {odd[0] if odd else 'recent'!r} does not fit")
        for i, array in enumerate(self._state.arrays()):
            array[:] = saved[f"state{i}"]
        self._recent = saved["recent"].astype(np.int64)
        end_ns = int(saved["end_ns"][0])
        self._end_ns = None if end_ns < 0 else end_ns


def open_session(bundle: Bundle, backend: Backend, info: SensorInfo) -> Session | Stream:
    """By the bundle's state policy. ``backend`` has loaded it. Raises BadModel when the sensor does not fit."""
    kind = Session if bundle.manifest.state == "reset" else Stream
    return kind(bundle, backend, info)
