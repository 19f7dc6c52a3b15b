"""What every encoder must do: the promises of ``models.base.Encoder`` and ``StreamEncoder`` as checks."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from pydantic import ValidationError

from drivers.packet import Packet, SensorInfo
from models.base import BadModel, Encoder, Raster, StreamEncoder, Window
from models.contract_check import Check, Failed, Skipped, demand
from models.contract_signals import SECOND_NS, length, packets, sensors, stuck, wider, window

SETTINGS: dict[str, dict[str, Any]] = {
    "event_bins": {"width": 128, "height": 128, "pool": 8},
    "levels": {"rate_hz": 50, "channels": ["gz", "ax"], "units": ["deg/s", "g"], "low": [-40, -1], "high": [40, 1]},
}
"""Of our encoders that cannot do without any."""


def window_checks(found: Any, settings: Mapping[str, Any]) -> list[Check]:
    """Of the encoder of windows ``found``, made with ``settings`` (what ``Config`` takes)."""
    one = _Windows(found, settings)
    promises: list[tuple[str, Callable[[], None]]] = [
        ("has a Config that refuses unknown keys and survives a manifest", partial(_configures, found, settings)),
        ("refuses a sensor of another family in one sentence", one.refuses_strangers),
        ("writes every cell, with 0 or 1", one.writes_every_cell),
        ("the same window gives the same raster, whatever came before", one.is_pure),
        ("does not touch the window; its integer type does not matter", one.takes_any_integer),
        ("encodes a stuck sensor without a warning", one.takes_a_stuck_sensor),
    ]
    return [Check(name, run) for name, run in promises]


def stream_checks(found: Any, settings: Mapping[str, Any]) -> list[Check]:
    """Of the encoder of streams ``found``, made with ``settings``."""
    one = _Streams(found, settings)
    promises: list[tuple[str, Callable[[], None]]] = [
        ("has a Config that refuses unknown keys and survives a manifest", partial(_configures, found, settings)),
        ("refuses a sensor of another family in one sentence", one.refuses_strangers),
        ("packets of any size give the same steps at the same times", one.is_indifferent_to_packets),
        ("steps follow each other without a hole", one.steps_follow),
        ("only the beginning is fresh, until a long gap", one.is_fresh_once),
        ("two of them do not disturb each other", one.two_at_once),
    ]
    return [Check(name, run) for name, run in promises]


def _config(found: Any, settings: Mapping[str, Any]) -> Any:
    try:
        return found.Config.model_validate(dict(settings))
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        raise Failed(f"its Config takes no {dict(settings)} (see {keys}); give the settings to try with") from error
    except AttributeError as error:
        raise Failed("it has no Config, which must be a pydantic model") from error


def _configures(found: Any, settings: Mapping[str, Any]) -> None:
    config = _config(found, settings)
    try:
        found.Config.model_validate({**settings, "no_such_key": 1})
    except ValidationError:
        pass
    else:
        raise Failed("its Config takes an unknown key; set model_config = ConfigDict(extra='forbid')")
    again = found.Config.model_validate_json(config.model_dump_json())
    demand(again == config, f"its Config is {again!r} after a manifest, before it was {config!r}")


def _refuses(make: Callable[[SensorInfo], object]) -> None:
    stranger = SensorInfo("seismic", ("ground",), ("mm/s",), (1.0,), 100.0)
    try:
        make(stranger)
    except BadModel as error:
        demand(str(error).isprintable(), f"refuses another family on more than one line: {str(error)!r}")
    else:
        raise Failed("takes a sensor of an unknown family, expected BadModel")


class _Windows:
    def __init__(self, found: Any, settings: Mapping[str, Any]) -> None:
        self._class = found
        self._settings = settings

    def _make(self, info: SensorInfo, samples: int) -> Encoder:
        made: Encoder = self._class(_config(self._class, self._settings), info, samples)
        return made

    def _made(self) -> tuple[Encoder, SensorInfo]:
        """An encoder, and a sensor that it takes."""
        rate_hz = getattr(_config(self._class, self._settings), "rate_hz", None)
        refusals = []
        for info in sensors(rate_hz):
            try:
                return self._make(info, length(info)), info
            except BadModel as error:
                refusals.append(f"{info.family} at {info.rate_hz:g} Hz: {error}")
        raise Skipped(f"it takes none of the sensors of this suite ({'; '.join(refusals)})")

    def _encode(self, encoder: Encoder, seen: Window) -> Raster:
        out = np.full(encoder.shape, 77, np.uint8)
        encoder.encode(seen, out)
        return out

    def refuses_strangers(self) -> None:
        _refuses(lambda info: self._make(info, 100))

    def writes_every_cell(self) -> None:
        encoder, info = self._made()
        demand(len(encoder.shape) == 2, f"its shape is {encoder.shape}, expected (time steps, features)")
        values = set(np.unique(self._encode(encoder, window(info, 1))).tolist())
        demand(values == {0, 1}, f"a busy window gave cells of {sorted(values)}, expected 0 and 1")

    def is_pure(self) -> None:
        encoder, info = self._made()
        one, other = window(info, 1), window(info, 2)
        first = self._encode(encoder, one)
        demand((first != self._encode(encoder, other)).any(), "two different windows gave the same raster")
        demand((first == self._encode(encoder, one)).all(), "the same window gave another raster after another window")
        encoder.reset()
        demand((first == self._encode(encoder, one)).all(), "the same window gave another raster after reset")
        fresh = self._make(info, length(info))
        demand((first == self._encode(fresh, one)).all(), "the same window gave another raster in a new encoder")

    def takes_any_integer(self) -> None:
        encoder, info = self._made()
        one = window(info, 1)
        before = one.data.copy()
        first = self._encode(encoder, one)
        demand((one.data == before).all(), "the window was changed")
        wide = self._encode(encoder, wider(one))
        demand((first == wide).all(), "the same window in int32 gave another raster than in int16")

    def takes_a_stuck_sensor(self) -> None:
        encoder, info = self._made()
        for value in (0, 32767, -32768):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                raster = self._encode(encoder, stuck(window(info, 1), value))
            demand(raster.max(initial=0) <= 1, f"a sensor stuck at {value} gave a cell of {raster.max()}")


class _Streams:
    def __init__(self, found: Any, settings: Mapping[str, Any]) -> None:
        self._class = found
        self._settings = settings

    def _make(self, info: SensorInfo) -> StreamEncoder:
        made: StreamEncoder = self._class(_config(self._class, self._settings), info)
        return made

    def _sensor(self) -> SensorInfo:
        """One that the encoder takes."""
        rate_hz = getattr(_config(self._class, self._settings), "rate_hz", None)
        refusals = []
        for info in sensors(rate_hz):
            try:
                self._make(info)
            except BadModel as error:
                refusals.append(f"{info.family} at {info.rate_hz:g} Hz: {error}")
            else:
                return info
        raise Skipped(f"it takes none of the sensors of this suite ({'; '.join(refusals)})")

    def _steps(self, info: SensorInfo, size: int) -> tuple[Raster, list[int]]:
        """All steps of a made signal, and when each began."""
        encoder = self._make(info)
        return _all(encoder, packets(info)(5, size))

    def refuses_strangers(self) -> None:
        _refuses(self._make)

    def is_indifferent_to_packets(self) -> None:
        info = self._sensor()
        whole, expected = self._steps(info, 1_000_000)
        demand(len(whole) > 1, f"a made signal gave {len(whole)} steps")
        values = set(np.unique(whole).tolist())
        demand(values == {0, 1}, f"a busy signal gave cells of {sorted(values)}, expected 0 and 1")
        for size in (1, 37, 160):
            raster, begins = self._steps(info, size)
            demand(np.array_equal(raster, whole), f"packets of {size} samples gave other steps than one packet")
            demand(begins == expected, f"packets of {size} samples gave steps at other times than one packet")

    def steps_follow(self) -> None:
        info = self._sensor()
        encoder = self._make(info)
        raster, begins = _all(encoder, packets(info)(5, 64))
        width = raster.shape[1]
        demand(width == encoder.features, f"its steps have {width} features, it said {encoder.features}")
        apart = sorted(set(np.diff(begins).tolist()))
        demand(apart == [encoder.step_ns], f"its steps are {apart} ns apart, it said {encoder.step_ns}")

    def is_fresh_once(self) -> None:
        info = self._sensor()
        encoder = self._make(info)
        signal = list(packets(info)(5, 400 if info.family in {"audio", "event_camera"} else 16))
        fresh = [encoder.push(packet).fresh for packet in signal]
        demand(fresh == [True, *[False] * (len(signal) - 1)], f"fresh was {fresh}, expected true at the first only")
        last = signal[-1]
        data = last.data.copy()
        gap_ns = 100 * SECOND_NS
        if last.dt_ns == 0:
            data["t_ns"] += gap_ns
        later = Packet(last.sensor, last.seq + 9, last.t0_ns + gap_ns, last.dt_ns, data)
        demand(encoder.push(later).fresh, "fresh was false after a gap of 100 s")

    def two_at_once(self) -> None:
        info = self._sensor()
        whole, _ = self._steps(info, 50)
        one, other = self._make(info), self._make(info)
        parts = []
        for mine, theirs in zip(packets(info)(5, 50), packets(info)(6, 50), strict=True):
            parts.append(one.push(mine).raster)
            other.push(theirs)
        demand(np.array_equal(np.concatenate(parts), whole), "the steps of one were changed by another")


def _all(encoder: StreamEncoder, signal: Iterator[Packet]) -> tuple[Raster, list[int]]:
    rasters, begins = [np.zeros((0, encoder.features), np.uint8)], []
    for packet in signal:
        steps = encoder.push(packet)
        rasters.append(steps.raster)
        begins += [steps.t0_ns + i * encoder.step_ns for i in range(len(steps.raster))]
    return np.concatenate(rasters), begins
