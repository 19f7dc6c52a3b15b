"""Events to spikes as they come: one time step per ``step_us``, one cell per polarity and block of pixels.

A cell spikes in a step in which its block of ``pool`` x ``pool`` pixels had an event of its polarity. Features are in
the order (polarity, row, column), darker first, as (channel, row, column) kernels want them.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from drivers.packet import EVENT, Packet, SensorInfo
from models.base import BadModel, Raster, Steps

MAX_SILENCE_S = 1.0
"""So long without an event is silence, in steps without spikes; after more, the stream begins anew."""
MAX_BACK_S = 0.1
"""A camera's time may go back by so much from one packet to the next: such events are in the step that is not over.
By more it is another time, and the stream begins anew."""
MOST_CELLS = 1 << 28
"""Of the steps of one packet: memory is taken for them."""


class EventBinsConfig(BaseModel):
    """Part ``encoder`` of a bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1, le=4096)
    """Of the sensor, in pixels; events elsewhere are an error of the configuration."""
    height: int = Field(ge=1, le=4096)
    pool: int = Field(default=1, ge=1, le=256)
    step_us: int = Field(default=1000, ge=1, le=1_000_000)
    polarity: bool = True
    """Whether brighter and darker have cells of their own."""


class EventBinsStream:
    """Any event camera. Work is per event, and per step; nothing per pixel but the raster itself."""

    Config = EventBinsConfig

    def __init__(self, cfg: EventBinsConfig, info: SensorInfo) -> None:
        """Raises BadModel when the sensor does not fit."""
        if info.family != "event_camera":
            raise BadModel(f"encoder event_bins takes an event camera, the sensor is {info.family}")
        self.cfg = cfg
        self._columns, self._rows = -(-cfg.width // cfg.pool), -(-cfg.height // cfg.pool)
        self.features = (2 if cfg.polarity else 1) * self._rows * self._columns
        self.step_ns = cfg.step_us * 1000
        self._most_steps = max(1, MOST_CELLS // self.features)
        self._max_steps = min(int(MAX_SILENCE_S * 1e9) // self.step_ns, self._most_steps)
        self._begin_ns: int | None = None
        """Of the step that is not over yet."""
        self._open: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        """The cells that spike in it."""
        self._open_events = 0

    def push(self, packet: Packet) -> Steps:
        """The steps that are over with the last event of ``packet``. Raises BadModel for events outside the sensor."""
        events: npt.NDArray[Any] = packet.data
        if events.dtype != EVENT:
            raise BadModel(f"a packet of {packet.sensor!r} has {events.dtype} samples, expected events")
        if not len(events):
            return Steps(np.zeros((0, self.features), np.uint8), self._begin_ns or packet.t0_ns, lost=packet.lost)
        t_ns = np.maximum.accumulate(events["t_ns"].astype(np.int64))
        cells = self._cells(packet.sensor, events)
        silence_ns, most_ns = self.step_ns * self._max_steps, self.step_ns * self._most_steps
        # The stream goes on behind the last silence that is too long, and with no more than memory is there for.
        skipped = int(np.max(np.flatnonzero(np.diff(t_ns) > silence_ns) + 1, initial=0))
        skipped = max(skipped, int(t_ns.searchsorted(t_ns[-1] - most_ns)))
        t_ns, cells = t_ns[skipped:], cells[skipped:]
        first_ns = int(t_ns[0])
        after_ns = None if self._begin_ns is None else first_ns - self._begin_ns
        fresh = bool(skipped) or after_ns is None or not -MAX_BACK_S * 1e9 <= after_ns <= silence_ns
        given_up = 0
        if fresh or self._begin_ns is None:
            given_up = self._open_events + skipped
            self._begin_ns, self._open, self._open_events = first_ns, self._open[:0], 0
        begin_ns = self._begin_ns
        at = np.maximum((t_ns - begin_ns) // self.step_ns, 0)
        over = int(at[-1])
        raster: Raster = np.zeros((over, self.features), np.uint8)
        done = at < over
        if over:
            raster[0, self._open] = 1
            raster[at[done], cells[done]] = 1
            self._open, self._open_events = self._open[:0], 0
        self._open_events += int(np.count_nonzero(~done))
        self._open = np.unique(np.concatenate([self._open, cells[~done]]))
        self._begin_ns = begin_ns + over * self.step_ns
        return Steps(raster, begin_ns, fresh, packet.lost, given_up)

    def _cells(self, sensor: str, events: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        cfg = self.cfg
        x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
        if int(x.max()) >= cfg.width or int(y.max()) >= cfg.height:
            raise BadModel(
                f"sensor {sensor!r} sends events up to pixel ({x.max()}, {y.max()}); the model was made for "
                f"{cfg.width} x {cfg.height}"
            )
        cells: npt.NDArray[np.int64] = (y // cfg.pool) * self._columns + x // cfg.pool
        if cfg.polarity:
            cells += events["on"].astype(np.int64) * (self._rows * self._columns)
        return cells


STREAM = EventBinsStream
