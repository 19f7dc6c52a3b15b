"""What a sensor says, in its unit: numbers of a short time for machines, and a picture of them for people."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from drivers.packet import EVENT, Packet, SensorCounters, SensorInfo

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN_CHANNELS = 64
"""Of more (an echo of 1500 samples) only the range is told."""
SCREENS = ((128, 128), (320, 240), (346, 260), (640, 480), (1280, 720))
"""Width and height of event cameras; the smallest that holds every event seen is drawn."""
RASTER_COLUMNS = 64
METER_CELLS = 40
QUIET_DBFS = -60.0
SILENT_DBFS = -120.0
BRIGHTEST = 255
NS_PER_S, NS_PER_MS = 1e9, 1e6


class Meter:
    """Takes packets; ``take`` tells what came since it was asked last."""

    def __init__(self, sensor: str, info: SensorInfo, counters: SensorCounters, start_ns: int) -> None:
        self._sensor = sensor
        self._info = info
        self._counters = counters
        self._start_ns = self._since_ns = start_ns
        self._lost = 0
        self._next_ns: float | None = None
        self._size = SCREENS[0]
        self._shown = _blank(self._size)
        self._reset()

    def _reset(self) -> None:
        self._packets = self._samples = 0
        self._late_ns: list[float] = []
        self._age_ns = 0
        self._blocks: list[npt.NDArray[Any]] = []
        self._on = self._off = 0
        self._raster = _blank(self._size)

    def add(self, packet: Packet, now_ns: int) -> None:
        """A packet that came at ``now_ns``."""
        count = len(packet.data)
        self._packets += 1
        self._samples += count
        self._lost += packet.lost
        if self._next_ns is not None and packet.dt_ns:
            self._late_ns.append(packet.t0_ns - self._next_ns - packet.lost * packet.dt_ns)
        self._next_ns = packet.t0_ns + count * packet.dt_ns
        self._age_ns = now_ns - packet.t0_ns
        if packet.data.dtype == EVENT:
            self._draw(packet.data)
        else:
            self._blocks.append(packet.data)

    def _draw(self, events: npt.NDArray[Any]) -> None:
        width, height = int(events["x"].max()) + 1, int(events["y"].max()) + 1
        if width > self._size[0] or height > self._size[1]:
            fitting = (size for size in SCREENS if width <= size[0] and height <= size[1])
            self._size = next(fitting, (width, height))
            self._raster = _blank(self._size)
        rows, columns, _ = self._raster.shape
        x = events["x"].astype(np.int64) * columns // self._size[0]
        y = events["y"].astype(np.int64) * rows // self._size[1]
        on = events["on"].astype(np.int64)
        counts = np.bincount((y * columns + x) * 2 + on, minlength=self._raster.size)
        self._raster += counts.reshape(self._raster.shape)
        self._on += int(on.sum())
        self._off += len(events) - int(on.sum())

    def take(self, now_ns: int) -> dict[str, Any]:
        """Everything that ``axond sensors tail --json`` tells of the time since the last call."""
        seconds = max(now_ns - self._since_ns, 1) / NS_PER_S
        counters = self._counters
        late = np.array(self._late_ns)
        facts = {
            "sensor": self._sensor,
            "family": self._info.family,
            "t_s": round((now_ns - self._start_ns) / NS_PER_S, 3),
            "samples": self._samples,
            "packets": self._packets,
            "rate_hz": round(self._samples / seconds, 2),
            "jitter_ms": round(float(np.sqrt((late**2).mean())) / NS_PER_MS, 3) if len(late) else None,
            "age_ms": round(self._age_ns / NS_PER_MS, 1) if self._packets else None,
            "lost": self._lost,
            "bad_checksum": counters.bad_checksum,
            "out_of_range": counters.out_of_range,
            "resync_bytes": counters.resync_bytes,
            "overruns": counters.overruns,
            "silent_s": round(counters.silent_s, 1),
            "notes": dict(counters.notes),
            "values": self._values(),
        }
        self._since_ns = now_ns
        self._shown = self._raster
        self._reset()
        return facts

    def _values(self) -> dict[str, Any]:
        if self._info.family == "event_camera":
            return {"on": self._on, "off": self._off, "width": self._size[0], "height": self._size[1]}
        if not self._blocks:
            return {}
        data = np.concatenate(self._blocks) * np.array(self._info.scale)
        if self._info.family == "audio":
            return {name: _level(data[:, index]) for index, name in enumerate(self._info.channels)}
        if data.shape[1] > SHOWN_CHANNELS:
            return {"all": _range(data[-1:].ravel(), self._info.units[0])}
        return {
            name: _range(data[:, index], unit)
            for index, (name, unit) in enumerate(zip(self._info.channels, self._info.units, strict=True))
        }

    def picture(self, facts: dict[str, Any]) -> "RenderableType":
        """The same for people, with the picture of the events that ``facts`` counted."""
        from rich.console import Group
        from rich.text import Text

        body = VIEWS.get(self._info.family, _table)(facts, self._shown)
        notes = [Text(note, "yellow") for note in facts["notes"].values()]
        return Group(Text(headline(facts), "bold"), body, *notes)


def headline(facts: dict[str, Any]) -> str:
    """Rates, jitter and losses in one line."""
    jitter = "-" if facts["jitter_ms"] is None else f"{facts['jitter_ms']:.2f} ms"
    unit = "events/s" if facts["family"] == "event_camera" else "Hz"
    problems = {key: facts[key] for key in ("bad_checksum", "out_of_range", "resync_bytes", "overruns") if facts[key]}
    told = "".join(f", {key.replace('_', ' ')} {value}" for key, value in problems.items())
    told += f", silent {facts['silent_s']:g} s" if facts["silent_s"] else ""
    return f"{facts['sensor']}  {facts['rate_hz']:.1f} {unit}, jitter {jitter}, lost {facts['lost']}{told}"


def line(facts: dict[str, Any]) -> str:
    """All of it in one line, for a pipe or a file."""
    values = []
    for name, value in facts["values"].items():
        if facts["family"] == "event_camera":
            values.append(f"{name} {value}")
        elif facts["family"] == "audio":
            values.append(f"{name} {value['rms_dbfs']:.1f} dBFS (peak {value['peak_dbfs']:.1f})")
        else:
            values.append(f"{name} {value['last']:.4g} {value['unit']}")
    return "; ".join(filter(None, (headline(facts), "  ".join(values), *facts["notes"].values())))


def _blank(size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """(rows, columns, 2): two rows of the picture go into one line of the terminal."""
    rows = 2 * max(1, round(RASTER_COLUMNS * size[1] / size[0] / 2))
    return np.zeros((rows, RASTER_COLUMNS, 2), np.int64)


def _level(samples: npt.NDArray[np.float64]) -> dict[str, float]:
    rms, peak = math.sqrt(float((samples**2).mean())), float(np.abs(samples).max())
    return {"rms_dbfs": _dbfs(rms), "peak_dbfs": _dbfs(peak)}


def _dbfs(level: float) -> float:
    return round(max(20 * math.log10(level), SILENT_DBFS), 1) if level > 0 else SILENT_DBFS


def _range(values: npt.NDArray[np.float64], unit: str) -> dict[str, Any]:
    return {
        "last": float(f"{values[-1]:.6g}"),
        "min": float(f"{values.min():.6g}"),
        "max": float(f"{values.max():.6g}"),
        "unit": unit,
    }


def _table(facts: dict[str, Any], _: npt.NDArray[np.int64]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table("channel", "last", "min", "max", "unit")
    for name, value in facts["values"].items():
        numbers = (f"{value[key]:.4g}" for key in ("last", "min", "max"))
        table.add_row(*(Text(cell) for cell in (name, *numbers, value["unit"])))
    return table


def _meters(facts: dict[str, Any], _: npt.NDArray[np.int64]) -> "RenderableType":
    from rich.text import Text

    text = Text()
    for name, level in facts["values"].items():
        loud, peak = (
            round(METER_CELLS * min(1.0, max(0.0, 1 - level[key] / QUIET_DBFS))) for key in ("rms_dbfs", "peak_dbfs")
        )
        bar = "█" * loud + "·" * max(0, peak - loud)
        text.append(f"{name:>8s} ")
        text.append(f"{bar:{METER_CELLS}s}", "red" if level["peak_dbfs"] > -1 else "green")
        text.append(f" {level['rms_dbfs']:6.1f} dBFS, peak {level['peak_dbfs']:6.1f}\n")
    return text


def _events(facts: dict[str, Any], raster: npt.NDArray[np.int64]) -> "RenderableType":
    """Brighter pixels green, darker ones red, each as strong as the busiest is busy."""
    from rich.text import Text

    shade = np.rint(BRIGHTEST * np.sqrt(raster / max(1, int(raster.max())))).astype(int).tolist()
    text = Text()
    for upper, lower in zip(shade[::2], shade[1::2], strict=True):
        for (off, on), (low_off, low_on) in zip(upper, lower, strict=True):
            text.append("▀", f"rgb({off},{on},0) on rgb({low_off},{low_on},0)")
        text.append("\n")
    text.append("{on} brighter, {off} darker, {width} x {height}".format(**facts["values"]))
    return text


VIEWS: dict[str, Callable[[dict[str, Any], npt.NDArray[np.int64]], "RenderableType"]] = {
    "audio": _meters,
    "event_camera": _events,
}
