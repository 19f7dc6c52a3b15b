"""Event recordings as a camera: EVT2, EVT2.1, EVT3, DAT, ES, AEDAT4 and 5-byte files at real or full speed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from drivers.base import ConfigPath, Driver, DriverConfig, EndOfInput, Misconfigured
from drivers.event_camera.recordings import Recording, open_recording
from drivers.event_camera.words import NS_PER_US, Block
from drivers.lib.clock import NS_PER_S
from drivers.lib.pace import Pace, Pacer
from drivers.packet import EVENT, Packet, SensorInfo

NS_PER_MS = 1_000_000
MAX_EVENTS = 1 << 20
"""A slice with more is handed over in parts."""
ENOUGH_EVENTS = 4096
"""So many that are next to each other are handed over as they are: joining them with more would copy them."""
KEPT_BYTES = 1 << 23
MAX_SPAN_NS = 1000 << 50
"""35 years: more is no time."""


Pixels: TypeAlias = Annotated[int, Field(ge=1, le=1 << 14)]


class EventFileConfig(DriverConfig):
    path: ConfigPath
    geometry: tuple[Pixels, Pixels] | None = None
    """Width and height in pixels; for files that do not tell (EVT and DAT may, 5-byte files never do)."""
    pace: Pace = "real"
    loop: bool = False
    packet_ms: int = Field(default=10, ge=1, le=10_000)


class FileEvents(Driver[EventFileConfig]):
    """Packets of at most ``packet_ms`` of the recording each; dense ones come in parts. The first event happens at
    ``open``.

    Times in the file never go back: an event before its predecessor gets its time and is counted as out of range.
    With ``loop`` the first event follows the last by one microsecond.
    """

    Config: ClassVar[type[DriverConfig]] = EventFileConfig

    def __init__(self, name: str, cfg: EventFileConfig) -> None:
        super().__init__(name, cfg)
        self._pacer = Pacer(cfg.pace, NS_PER_S / NS_PER_US)
        self._slices: Iterator[npt.NDArray[Any]] | None = None
        self._next: npt.NDArray[Any] | None = None
        self._seq = 0

    @property
    def live(self) -> bool:
        return self.cfg.pace == "real"

    def info(self) -> SensorInfo:
        return SensorInfo("event_camera", ("x", "y", "on"), ("px", "px", "1"), (1.0, 1.0, 1.0), NS_PER_S / NS_PER_US)

    def open(self) -> None:
        """Read up to the end of the first slice, start the clock. Raises Misconfigured, naming file and fault."""
        self.close()
        _keep_memory()
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
        lap_ns = 0
        while True:
            timeline = Timeline(recording.path, start_ns, lap_ns, self.cfg.packet_ms * NS_PER_MS)
            for block in recording.decode():
                self.counters.out_of_range += timeline.enter(block)
                yield from timeline.cut()
            if timeline.first_ns is None:
                raise Misconfigured(f"{recording.path}: holds no events")
            yield from timeline.rest()
            if not self.cfg.loop:
                return
            lap_ns = timeline.last_ns + NS_PER_US


def _keep_memory() -> None:
    """Make the C library keep freed blocks of events for the next ones.

    glibc gives large ones back to the system until a larger one was freed (mallopt(3), M_MMAP_THRESHOLD); new pages for
    each block cost as much as its decoding.
    """
    np.empty(KEPT_BYTES, np.uint8)


class Timeline:
    """One lap: makes blocks of the file's time into slices of ours."""

    def __init__(self, path: Path, start_ns: int, lap_ns: int, slice_ns: int) -> None:
        """``lap_ns``: what the first event's time becomes, since the first event ever played, at ``start_ns``."""
        self.first_ns: int | None = None
        """Time of the first event, in the file."""
        self.last_ns = lap_ns
        """Time of the newest event since the first event ever played."""
        self._path = path
        self._start_ns = start_ns
        self._lap_ns = lap_ns
        self._slice_ns = slice_ns
        self._slice_end_ns = start_ns + lap_ns + slice_ns
        self._parts: list[npt.NDArray[Any]] = []
        self._count = 0
        self._t_ns: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._events: npt.NDArray[Any] = np.empty(0, EVENT)

    def enter(self, block: Block) -> int:
        """Take the next block; it is written to. Returns how many events lay before their predecessors."""
        t_ns = block.t_ns
        if self.first_ns is None:
            self.first_ns = int(t_ns[0])
        # Added at once: to the file's time what makes it ours.
        t_ns += self._start_ns + self._lap_ns - self.first_ns
        newest_ns = self._start_ns + self.last_ns
        back = 0
        if t_ns[0] < newest_ns or not (block.ordered or (t_ns[:-1] <= t_ns[1:]).all()):
            held_ns = np.maximum(np.maximum.accumulate(t_ns), newest_ns)
            back = int(np.count_nonzero(held_ns != t_ns))
            t_ns = held_ns
        self.last_ns = int(t_ns[-1]) - self._start_ns
        if self.last_ns > self._lap_ns + MAX_SPAN_NS:
            raise Misconfigured(f"{self._path}: its times leap over more than 35 years; it is broken")
        block.events["t_ns"] = t_ns
        self._t_ns, self._events = t_ns, block.events
        return back

    def cut(self) -> Iterator[npt.NDArray[Any]]:
        """The slices that the block completes; its end is kept for the next."""
        t_ns, events = self._t_ns, self._events
        at, count = 0, len(events)
        while at < count:
            if t_ns[at] >= self._slice_end_ns:
                yield from self.rest()
                self._slice_end_ns += ((int(t_ns[at]) - self._slice_end_ns) // self._slice_ns + 1) * self._slice_ns
            end = count if t_ns[-1] < self._slice_end_ns else int(t_ns.searchsorted(self._slice_end_ns))
            end = min(end, at + MAX_EVENTS)
            self._parts.append(events[at:end])
            self._count += end - at
            at = end
            if self._count >= ENOUGH_EVENTS:
                yield from self.rest()

    def rest(self) -> Iterator[npt.NDArray[Any]]:
        """What is kept, if anything."""
        parts, self._parts, self._count = self._parts, [], 0
        if len(parts) > 1:
            # As bytes: numpy copies packed records one by one.
            yield np.frombuffer(np.concatenate([np.frombuffer(part, np.uint8) for part in parts]), EVENT)
        else:
            yield from parts


DRIVER = FileEvents
