"""Packets in, inferences out: windows, encoder, backend and scores of one bundle and one sensor, without threads."""

import time
from collections.abc import Iterable, Iterator

import numpy as np

from drivers.packet import Packet, SensorInfo
from models.base import Backend, Inference, Raster, Window
from models.bundle import Bundle
from models.registry import make_encoder
from models.select import softmax
from models.window_events import empty_window, make_windower


class Session:
    """One stream of decisions; one thread calls it. State policy ``reset``: each window starts from rest."""

    def __init__(self, bundle: Bundle, backend: Backend, info: SensorInfo) -> None:
        """``backend`` has loaded ``bundle``. Raises BadModel when the sensor does not fit."""
        self._encoder = make_encoder(bundle, info)
        self._windower = make_windower(bundle.windows, info)
        self._raster = np.zeros(self._encoder.shape, np.uint8)
        self._silence = empty_window(bundle.windows, info)
        self._backend = backend
        self._labels = bundle.manifest.labels
        self._temperature = bundle.manifest.temperature

    def warm_up(self) -> None:
        """Go through everything once, so that the first real window does not pay for first times."""
        self._encoder.encode(self._silence, self._raster)
        self._backend.infer(self._raster)

    @property
    def raster(self) -> Raster:
        """The spikes of the latest window; the next one overwrites them."""
        return self._raster

    @property
    def given_up_samples(self) -> int:
        """Samples of begun windows that a long gap ended before they were whole."""
        return self._windower.given_up

    def push(self, packet: Packet) -> Iterator[Inference]:
        """Take a packet; yield the inference of each window that it completes."""
        return self.infer(self._windower.push(packet))

    def advance(self, now_ns: int) -> Iterator[Inference]:
        """Nothing from before ``now_ns`` is still to come: yield the inference of each window that is complete by it.

        Only events need that; samples tell by themselves that time passes.
        """
        return self.infer(self._windower.advance(now_ns))

    def infer(self, windows: Iterable[Window]) -> Iterator[Inference]:
        """The inference of each window, whoever cut it."""
        for window in windows:
            self._encoder.encode(window, self._raster)
            encoded_ns = time.monotonic_ns()
            potentials = self._backend.infer(self._raster).sum(axis=0)
            inferred_ns = time.monotonic_ns()
            scores = softmax(potentials, self._temperature)
            best = int(potentials.argmax())
            yield Inference(
                t0_ns=window.t0_ns,
                last_ns=window.end_ns - window.dt_ns,
                end_ns=window.end_ns,
                label=self._labels[best],
                score=round(float(scores[best]), 4),
                lost=window.lost,
                input_spikes=int(np.count_nonzero(self._raster)),
                encoded_ns=encoded_ns,
                inferred_ns=inferred_ns,
            )
