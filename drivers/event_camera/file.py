"""Event recordings as a camera: EVT2, EVT2.1, EVT3, DAT, ES, AEDAT4 and 5-byte files at real or full speed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from drivers.base import Driver, DriverConfig, EndOfInput, Misconfigured
from drivers.event_camera.recordings import Recording, open_recording
from drivers.lib.clock import NS_PER_S
from drivers.lib.pace import Pace, Pacer
from drivers.packet import EVENT, Packet, SensorInfo

NS_PER_TICK = 1000
MAX_EVENTS = 1 << 20
"""A slice with more is handed over in parts."""
MAX_SPAN_US = 1 << 50
"""35 years: more is no time, and would not fit into nanoseconds."""


Pixels: TypeAlias = Annotated[int, Field(ge=1, le=1 << 14)]


class EventFileConfig(DriverConfig):
    path: Path
    geometry: tuple[Pixels, Pixels] | None = None
    """Width and height in pixels; for files that do not tell (EVT and DAT may, 5-byte files never do)."""
    pace: Pace = "real"
    loop: bool = False
    packet_ms: int = Field(default=10, ge=1, le=10_000)


class FileEvents(Driver[EventFileConfig]):
    """One packet per ``packet_ms`` of the recording in which anything happens. The first event happens at ``open``.

    Times in the file never go back: an event before its predecessor gets its time and is counted as out of range.
    With ``loop`` the first event follows the last by one microsecond.
    """

    Config: ClassVar[type[DriverConfig]] = EventFileConfig

    def __init__(self, name: str, cfg: EventFileConfig) -> None:
        super().__init__(name, cfg)
        self._pacer = Pacer(cfg.pace, NS_PER_S / NS_PER_TICK)
        self._slices: Iterator[npt.NDArray[Any]] | None = None
        self._next: npt.NDArray[Any] | None = None
        self._seq = 0

    @property
    def live(self) -> bool:
        return self.cfg.pace == "real"

    def info(self) -> SensorInfo:
        return SensorInfo("event_camera", ("x", "y", "on"), ("px", "px", "1"), (1.0, 1.0, 1.0), NS_PER_S / NS_PER_TICK)

    def open(self) -> None:
        """Read up to the end of the first slice, start the clock. Raises Misconfigured, naming file and fault."""
        self.close()
        recording = open_recording(self.cfg.path, self.cfg.geometry)
        self._pacer.start()
        self._slices = self._play(recording, self._pacer.t_ns(0))
        try:
            self._next = next(self._slices)
        except Misconfigured:
            self.close()
            raise
        self._seq = 0

    def read(self, timeout: float) -> Packet | None:
        """The next slice when its last event is due. Raises EndOfInput after the last without loop, Misconfigured."""
        if self._next is None:
            self._next = next(self._slices, None) if self._slices is not None else None
        if self._next is None:
            raise EndOfInput(f"{self.cfg.path}: the recording has ended")
        data = self._next
        if not self._pacer.wait_until(int(data["t_ns"][-1]), timeout):
            return None
        self._next = None
        packet = Packet(self.name, self._seq, int(data["t_ns"][0]), 0, data)
        self._seq += 1
        return packet

    def close(self) -> None:
        # The decoder's file is closed with the generator that holds it.
        self._slices = None
        self._next = None

    def _play(self, recording: Recording, start_ns: int) -> Iterator[npt.NDArray[Any]]:
        """Slices as EVENT; the first event ever played happens at ``start_ns``."""
        lap_us = 0
        while True:
            timeline = Timeline(recording.path, start_ns, lap_us)
            for events in recording.decode():
                if len(events):
                    self.counters.out_of_range += timeline.enter(events)
                    yield from timeline.cut(self.cfg.packet_ms * 1000)
            if timeline.first_us is None:
                raise Misconfigured(f"{recording.path}: holds no events")
            yield from timeline.rest()
            if not self.cfg.loop:
                return
            lap_us = timeline.last_us + 1


class Timeline:
    """One lap: makes blocks of the file's time into slices of ours."""

    def __init__(self, path: Path, start_ns: int, lap_us: int) -> None:
        """``lap_us``: what the first event's time becomes, since the first event ever played, at ``start_ns``."""
        self.first_us: int | None = None
        self.last_us = lap_us
        """Time of the newest event, in us since the first event ever played."""
        self._path = path
        self._start_ns = start_ns
        self._lap_us = lap_us
        self._slice = 0
        self._parts: list[npt.NDArray[Any]] = []
        self._count = 0
        self._block: npt.NDArray[Any] = np.empty(0, EVENT)
        self._t_us: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def enter(self, events: npt.NDArray[Any]) -> int:
        """Take the next block, n >= 1; it is written to. Returns how many events lay before their predecessors."""
        t_us = events["t"].astype(np.int64)
        if self.first_us is None:
            self.first_us = int(t_us[0])
            if self.first_us < 0:
                raise Misconfigured(f"{self._path}: its first event has a time of {events['t'][0]} us; it is broken")
        t_us -= self.first_us - self._lap_us
        back = 0
        if t_us[0] < self.last_us or (t_us[1:] < t_us[:-1]).any():
            literal = t_us
            t_us = np.maximum(np.maximum.accumulate(literal), self.last_us)
            back = int((t_us != literal).sum())
        if t_us[-1] > self._lap_us + MAX_SPAN_US:
            raise Misconfigured(f"{self._path}: its times leap over more than 35 years; it is broken")
        self.last_us = int(t_us[-1])
        self._block = events.view(EVENT)
        self._block["t_ns"] = t_us * NS_PER_TICK + self._start_ns
        self._t_us = t_us
        return back

    def cut(self, slice_us: int) -> Iterator[npt.NDArray[Any]]:
        """The slices that the block completes; its end is kept for the next."""
        at = 0
        while at < len(self._block):
            index = (int(self._t_us[at]) - self._lap_us) // slice_us
            if index != self._slice:
                yield from self.rest()
                self._slice = index
            end = int(np.searchsorted(self._t_us, self._lap_us + (index + 1) * slice_us))
            end = min(end, at + MAX_EVENTS - self._count)
            self._parts.append(self._block[at:end])
            self._count += end - at
            at = end
            if self._count == MAX_EVENTS:
                yield from self.rest()

    def rest(self) -> Iterator[npt.NDArray[Any]]:
        """What is kept, if anything."""
        if self._parts:
            # As bytes: numpy copies packed records one by one.
            parts = [part.view(np.uint8) for part in self._parts]
            self._parts, self._count = [], 0
            yield (parts[0] if len(parts) == 1 else np.concatenate(parts)).view(EVENT)


DRIVER = FileEvents
