"""Packets in, inferences out: windows, encoder, backend and scores of one bundle and one sensor, without threads."""

import time
from collections.abc import Iterator

import numpy as np

from drivers.packet import Packet, SensorInfo
from models.base import Backend, Inference, Window
from models.bundle import Bundle
from models.registry import make_encoder
from models.select import softmax
from models.window import Windower


class Session:
    """One stream of decisions; one thread calls it. State policy ``reset``: each window starts from rest."""

    def __init__(self, bundle: Bundle, backend: Backend, info: SensorInfo) -> None:
        """``backend`` has loaded ``bundle``. Raises BadModel when the sensor does not fit."""
        self._encoder = make_encoder(bundle, info)
        self._windower = Windower(bundle.windows, info)
        self._raster = np.zeros(self._encoder.shape, np.uint8)
        self._window_shape = bundle.windows.samples, len(info.channels)
        self._info = info
        self._backend = backend
        self._labels = bundle.manifest.labels
        self._temperature = bundle.manifest.temperature

    def warm_up(self) -> None:
        """Go through everything once, so that the first real window does not pay for first times."""
        samples, channels = self._window_shape
        silence = Window(0, 1, np.zeros((samples, channels), np.int16), self._info)
        self._encoder.encode(silence, self._raster)
        self._backend.infer(self._raster)

    @property
    def given_up_samples(self) -> int:
        """Samples of begun windows that a long gap ended before they were whole."""
        return self._windower.given_up

    def push(self, packet: Packet) -> Iterator[Inference]:
        """Take a packet; yield the inference of each window that it completes."""
        for window in self._windower.push(packet):
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
