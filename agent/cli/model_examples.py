"""Examples of a label in files: sounds, and what ``axond record`` wrote."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from drivers import recording as packets
from drivers.base import Misconfigured
from drivers.packet import EVENT, Packet, SensorInfo
from models.base import BadModel, Window
from models.bundle import Bundle
from models.datasets.audio import read_wav
from models.datasets.recording import Recording, at_rate, audio_info, live_window
from models.registry import make_encoder
from models.window_events import NS_PER_US, make_windower

MOST_FILE_BYTES = 64 << 20


def from_files(bundle: Bundle, paths: Iterable[Path]) -> list[Window]:
    """The windows of ``paths``: the first of each ``.wav`` (resampled to the bundle's rate), all of a ``.npz`` that
    ``axond record`` wrote. Raises BadModel for a file that is none of them, does not fit, or has no window."""
    windows = []
    for path in paths:
        found = _of_wav(bundle, path) if path.suffix.lower() == ".wav" else _of_recording(bundle, path)
        if not found:
            raise BadModel(f"{path}: no window begins in it; is it long and loud enough?")
        windows += found
    return windows


def _of_wav(bundle: Bundle, path: Path) -> list[Window]:
    wanted = bundle.manifest.sole.input
    if wanted.family != "audio":
        raise BadModel(f"{path}: {bundle.id} listens to {wanted.family}, not to sound; expected a .npz of axond record")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise BadModel(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > MOST_FILE_BYTES:
        raise BadModel(f"{path}: larger than {MOST_FILE_BYTES} bytes; cut the example out of it")
    data, rate_hz = read_wav(content, str(path))
    heard = Recording(path.name, "", "", data, audio_info(rate_hz))
    found = live_window(at_rate(heard, round(wanted.rate_hz)), bundle.windows)
    return [] if found is None else [found]


def _of_recording(bundle: Bundle, path: Path) -> list[Window]:
    try:
        recorded = packets.load(path)
        make_encoder(bundle, recorded.info)
    except Misconfigured as error:
        raise BadModel(f"{error} (expected .wav, or .npz of axond record)") from error
    except BadModel as error:
        raise BadModel(f"{path}: {error}") from error
    return list(_of_packets(bundle, recorded.info, recorded.packets))


def _of_packets(bundle: Bundle, info: SensorInfo, stream: Iterable[Packet]) -> Iterator[Window]:
    """The windows of a sensor, as they come; of events also those that its end completes. Raises BadModel."""
    windower = make_windower(bundle.windows, info)
    last_ns = 0
    for packet in stream:
        yield from windower.push(packet)
        events: npt.NDArray[Any] = packet.data
        if events.dtype == EVENT:
            last_ns = int(events["t_ns"][-1])
    yield from windower.advance(last_ns + bundle.windows.samples * NS_PER_US)
