"""Events to spikes, in windows and as they come: one cell per polarity and block of pixels, in steps of time or count.

A cell spikes in a step in which its block of ``pool`` x ``pool`` pixels had an event of its polarity. Features are in
the order (polarity, row, column), darker first, as (channel, row, column) kernels want them.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from drivers.packet import EVENT, Packet, SensorInfo
from models.base import BadModel, Raster, Steps, Window

MAX_SILENCE_S = 1.0
"""So long without an event is silence, in steps without spikes; after more, the stream begins anew."""
MAX_BACK_S = 0.1
"""A camera's time may go back by so much from one packet to the next: such events are in the step that is not over.
By more it is another time, and the stream begins anew."""
MOST_CELLS = 1 << 28
"""Of the steps of one packet, or of a window: memory is taken for them."""
NS_PER_US = 1000

Cells = npt.NDArray[np.int64]


class EventBinsConfig(BaseModel):
    """Part ``encoder`` of a bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1, le=4096)
    """Of the sensor, or of the part of it that ``crop`` begins, in pixels."""
    height: int = Field(ge=1, le=4096)
    crop: tuple[int, int] | None = None
    """Column and row of the part's first pixel: events elsewhere are left out. Without, they are an error of the
    configuration."""
    pool: int = Field(default=1, ge=1, le=256)
    step_us: int = Field(default=1000, ge=1, le=1_000_000)
    events_per_step: int = Field(default=0, ge=0, le=1_000_000)
    """Of windows: 0, or so many events (inside ``crop``) are a step, however long they take. A window has as many steps
    as by time; events that would fill more are left out."""
    polarity: bool = True
    """Whether brighter and darker have cells of their own."""


class _Grid:
    """Which cell an event belongs to."""

    def __init__(self, cfg: EventBinsConfig, info: SensorInfo) -> None:
        if info.family != "event_camera":
            raise BadModel(f"encoder event_bins takes an event camera, the sensor is {info.family}")
        self._cfg = cfg
        self._columns, self._rows = -(-cfg.width // cfg.pool), -(-cfg.height // cfg.pool)
        self.features = (2 if cfg.polarity else 1) * self._rows * self._columns

    def cells(self, whose: str, events: npt.NDArray[Any]) -> tuple[npt.NDArray[np.bool_] | slice, Cells]:
        """Which of the events count, and the cells of those. Raises BadModel for events outside the sensor."""
        cfg = self._cfg
        x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
        on = events["on"]
        inside: npt.NDArray[np.bool_] | slice = slice(None)
        if cfg.crop is not None:
            x, y = x - cfg.crop[0], y - cfg.crop[1]
            inside = (x >= 0) & (x < cfg.width) & (y >= 0) & (y < cfg.height)
            x, y, on = x[inside], y[inside], on[inside]
        elif int(x.max(initial=0)) >= cfg.width or int(y.max(initial=0)) >= cfg.height:
            raise BadModel(
                f"{whose} sends events up to pixel ({x.max()}, {y.max()}); the model was made for "
                f"{cfg.width} x {cfg.height}; set the encoder's crop for a part of a larger sensor"
            )
        cells: Cells = (y // cfg.pool) * self._columns + x // cfg.pool
        if cfg.polarity:
            cells += (on != 0) * (self._rows * self._columns)
        return inside, cells


class EventBins:
    """Encoder of windows of events. Pure; work is per event, and per cell of the raster."""

    Config = EventBinsConfig

    def __init__(self, cfg: EventBinsConfig, info: SensorInfo, samples: int) -> None:
        """``samples``: microseconds of a window. Raises BadModel when the sensor does not fit."""
        self.cfg = cfg
        self._grid = _Grid(cfg, info)
        self._step_ns = cfg.step_us * NS_PER_US
        self.shape = (-(-samples // cfg.step_us), self._grid.features)
        if self.shape[0] * self.shape[1] > MOST_CELLS:
            raise BadModel(f"encoder event_bins: a window has {self.shape} cells, expected {MOST_CELLS} at most")

    def reset(self) -> None:
        """Nothing is kept between windows."""

    def encode(self, window: Window, out: Raster) -> None:
        """Write the spikes of ``window`` (EVENT[n]) into ``out``, uint8 of ``shape``. Raises BadModel."""
        events: npt.NDArray[Any] = window.data
        if events.dtype != EVENT:
            raise BadModel(f"encoder event_bins got {events.dtype} samples, expected events")
        inside, cells = self._grid.cells("the sensor", events)
        if self.cfg.events_per_step:
            step = np.arange(len(cells)) // self.cfg.events_per_step
        else:
            step = (events["t_ns"][inside] - window.t0_ns) // self._step_ns
        kept = (step >= 0) & (step < self.shape[0])
        out.fill(0)
        out[step[kept], cells[kept]] = 1


class EventBinsStream:
    """Any event camera. Work is per event, and per step; nothing per pixel but the raster itself."""

    Config = EventBinsConfig

    def __init__(self, cfg: EventBinsConfig, info: SensorInfo) -> None:
        """Raises BadModel when the sensor does not fit, or the steps are no stretches of time."""
        if cfg.events_per_step:
            raise BadModel("encoder event_bins: events_per_step is for windows; a stream's steps are all of one length")
        self.cfg = cfg
        self._grid = _Grid(cfg, info)
        self.features = self._grid.features
        self.step_ns = cfg.step_us * NS_PER_US
        self._most_steps = max(1, MOST_CELLS // self.features)
        self._max_steps = min(int(MAX_SILENCE_S * 1e9) // self.step_ns, self._most_steps)
        self._begin_ns: int | None = None
        """Of the step that is not over yet."""
        self._open: Cells = np.zeros(0, np.int64)
        """The cells that spike in it."""
        self._open_events = 0

    def push(self, packet: Packet) -> Steps:
        """The steps that are over with the last event of ``packet``. Raises BadModel for events outside the sensor."""
        events: npt.NDArray[Any] = packet.data
        if events.dtype != EVENT:
            raise BadModel(f"a packet of {packet.sensor!r} has {events.dtype} samples, expected events")
        inside, cells = self._grid.cells(f"sensor {packet.sensor!r}", events)
        if not len(cells):
            return Steps(np.zeros((0, self.features), np.uint8), self._begin_ns or packet.t0_ns, lost=packet.lost)
        t_ns = np.maximum.accumulate(events["t_ns"].astype(np.int64)[inside])
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


ENCODER = EventBins
STREAM = EventBinsStream
