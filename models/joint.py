"""Windows over several sensors: the same stretch of capture time of each, begun by whichever hears something first.

An onset of any sensor begins a window for all; further ones before its end do not. Where none is cut by onsets, windows
follow each other by the first sensor's hop. A window is over when every live sensor's data for it are there, or so long
after its end that they are late: what is missing then is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from drivers.packet import Packet, SensorInfo
from models.base import BadModel, Window
from models.bundle import Manifest
from models.track import Share, make_track
from models.window import WindowSpec
from models.window_events import NS_PER_US, EventWindower, make_windower

LENGTHS_AGREE = 0.01
"""Windows of the inputs may differ in length by so much."""
TRIGGER_PART = 4
"""An onset is known when this part of a window has passed; others of the same sensor in it are the same event."""
MOST_AHEAD = 4
"""A sensor whose capture time is so many windows ahead does not wait any longer, so that memory stays bounded."""
LONG_AGO_NS = -(1 << 62)


@dataclass(frozen=True, slots=True)
class Joint:
    """One window over all sensors."""

    t0_ns: int
    end_ns: int
    shares: tuple[Share, ...]
    """What each sensor has of it."""


@dataclass(frozen=True, slots=True, order=True)
class _Start:
    t0_ns: int
    onset_ns: int
    by: int


class JointWindower:
    """One thread calls it. Packets of any size give the same windows, where none is late."""

    def __init__(self, manifest: Manifest, infos: Sequence[SensorInfo]) -> None:
        """``infos``: of the sensors, in the order of the manifest's inputs. Raises BadModel."""
        specs = []
        for part in manifest.parts:
            if part.window is None:
                raise BadModel(f"input {part.name!r} of model {manifest.name!r} has no window")
            specs.append(part.window)
        lengths_ns = [length_ns(spec, info) for spec, info in zip(specs, infos, strict=True)]
        self.length_ns = max(lengths_ns)
        if min(lengths_ns) < (1 - LENGTHS_AGREE) * self.length_ns:
            shown = ", ".join(f"{ns / 1e6:g} ms" for ns in lengths_ns)
            raise BadModel(f"model {manifest.name!r}: inputs: windows of different lengths ({shown}); make them equal")
        self.late_ns = round((manifest.late_ms or 0.0) * 1e6)
        self._tracks = [make_track(info, spec.samples) for spec, info in zip(specs, infos, strict=True)]
        self._triggers = [
            make_windower(_trigger(spec), info) if spec.mode == "onset" else None
            for spec, info in zip(specs, infos, strict=True)
        ]
        self._pre_ns = [spec.pre * _unit_ns(info) for spec, info in zip(specs, infos, strict=True)]
        self._hop_ns = 0 if any(self._triggers) else specs[0].hop * _unit_ns(infos[0])
        self._grid_ns: int | None = None
        self._starts: list[_Start] = []
        self.trusted = [True] * len(specs)
        """A window that another sensor began gives way to one that begins in it, and does not keep one off."""
        self._free_ns = LONG_AGO_NS
        """The end of the last window; and of the last that a trusted sensor began."""
        self._free_trusted_ns = LONG_AGO_NS

    @property
    def late(self) -> list[int]:
        """Samples or events of each sensor that came when their window had been decided."""
        return [track.late for track in self._tracks]

    def push(self, index: int, packet: Packet) -> None:
        """Take a packet of the sensor ``index``. Raises BadModel when it is not what its info says."""
        self._tracks[index].push(packet)
        trigger = self._triggers[index]
        if trigger is not None:
            self._begin(index, trigger.push(packet))

    def due(self, now_ns: int, live: Sequence[bool]) -> list[Joint]:
        """The windows that are over at CLOCK_MONOTONIC ``now_ns``; sensors that are not ``live`` are not waited for."""
        for index, trigger in enumerate(self._triggers):
            if isinstance(trigger, EventWindower):
                self._begin(index, trigger.advance(now_ns - self.late_ns))
        self._go_back(now_ns)
        joints = []
        while (start := self._first()) is not None and self._is_over(start.t0_ns, now_ns, live):
            end_ns = start.t0_ns + self.length_ns
            heard_ns = [end_ns if alive else LONG_AGO_NS for alive in live]
            shares = tuple(t.share(start.t0_ns, ns) for t, ns in zip(self._tracks, heard_ns, strict=True))
            self._go_on(start, end_ns)
            if any(share.window is not None for share in shares):
                joints.append(Joint(start.t0_ns, end_ns, shares))
            elif self._hop_ns:
                self._grid_ns = None
        self._forget()
        return joints

    def due_ns(self) -> int | None:
        """When the window that has begun is over at the latest; None where none has."""
        start = self._first()
        return None if start is None else start.t0_ns + self.length_ns + self.late_ns

    def _begin(self, index: int, windows: list[Window]) -> None:
        pre_ns = self._pre_ns[index]
        self._starts += [_Start(window.t0_ns, window.t0_ns + pre_ns, index) for window in windows]

    def _first(self) -> _Start | None:
        """The window that is decided next."""
        if self._hop_ns:
            return self._next_of_grid()
        self._starts = sorted(start for start in self._starts if start.onset_ns >= self._free_for(start.by))
        if not self._starts:
            return None
        first = self._starts[0]
        if not self.trusted[first.by]:
            rivals = (s for s in self._starts if self.trusted[s.by] and s.t0_ns < first.t0_ns + self.length_ns)
            first = next(rivals, first)
        return first

    def _free_for(self, index: int) -> int:
        return self._free_trusted_ns if self.trusted[index] else self._free_ns

    def _next_of_grid(self) -> _Start | None:
        if self._grid_ns is None:
            tracks = [track for track in self._tracks if track.end_ns is not None and track.end_ns > self._free_ns]
            begins = [track.begin_ns for track in tracks if track.begin_ns is not None]
            if not begins:
                return None
            self._grid_ns = max(min(begins), self._free_ns)
        return _Start(self._grid_ns, self._grid_ns, 0)

    def _is_over(self, t0_ns: int, now_ns: int, live: Sequence[bool]) -> bool:
        end_ns = t0_ns + self.length_ns
        if now_ns >= end_ns + self.late_ns:
            return True
        if all(track.has(t0_ns) for track, alive in zip(self._tracks, live, strict=True) if alive):
            return True
        ahead_ns = end_ns + self.late_ns + MOST_AHEAD * self.length_ns
        return any(track.end_ns is not None and track.end_ns > ahead_ns for track in self._tracks)

    def _go_on(self, start: _Start, end_ns: int) -> None:
        self._free_ns = max(self._free_ns, end_ns)
        if self._hop_ns:
            self._grid_ns = start.t0_ns + self._hop_ns
            return
        self._starts.remove(start)
        if self.trusted[start.by]:
            self._free_trusted_ns = max(self._free_trusted_ns, end_ns)

    def _go_back(self, now_ns: int) -> None:
        """A clock that had leapt ahead is back: what was decided of that time keeps no window off."""
        known_ns = max([track.end_ns for track in self._tracks if track.end_ns is not None], default=now_ns)
        if self._free_ns > max(known_ns, now_ns) + self.length_ns:
            self._free_ns = self._free_trusted_ns = known_ns
            self._grid_ns = None

    def _forget(self) -> None:
        """What is older than every window that may still begin: an onset becomes known late, by another sensor too."""
        starts = [start.t0_ns for start in self._starts] + ([] if self._grid_ns is None else [self._grid_ns])
        for track in self._tracks:
            if track.end_ns is not None:
                track.forget(min([*starts, track.end_ns - 2 * self.length_ns - self.late_ns]))


def length_ns(spec: WindowSpec, info: SensorInfo) -> int:
    """How long a window of this sensor is."""
    return round(spec.samples * (NS_PER_US if info.family == "event_camera" else 1e9 / info.rate_hz))


def _unit_ns(info: SensorInfo) -> int:
    """What a window's spec counts in: samples, of an event camera microseconds."""
    return NS_PER_US if info.family == "event_camera" else round(1e9 / info.rate_hz)


def _trigger(spec: WindowSpec) -> WindowSpec:
    """Windows that are whole as soon as it is known that one begins."""
    return replace(spec, samples=max(spec.pre + 1, spec.samples // TRIGGER_PART))
