"""The driver of event recordings beside faery alone on the same files, format by format."""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.base import EndOfInput
from drivers.event_camera.file import EventFileConfig, FileEvents
from drivers.extras import how_to_install

EVENTS = 2_000_000
EVENTS_PER_S = 5_000_000
"""Of the recording: those of a VGA camera that sees much motion."""
SIZE = (640, 480)
FIVE_BYTES_SIZE = (256, 256)
"""Such a file has one byte for x and one for y."""
FIVE_BYTES_MAX_US = 1 << 23
FILES = {
    "evt2": ("evt2.raw", SIZE),
    "evt3": ("evt3.raw", SIZE),
    "aedat4": ("a.aedat4", None),
    "dat": ("a.dat", None),
    "es": ("a.es", None),
    "five_bytes": ("a.bin", FIVE_BYTES_SIZE),
}
"""Name and, where the file does not tell it, size."""


def measure(seconds: float) -> dict[str, Any]:
    """Events per second from open to close at full speed, and of faery's own decoder iterated to the file's end.

    Seconds are CPU time of the one thread that either runs in, so that other programs do not show. Both by turns;
    ``ratio`` is the median of the turns' ratios: above 1, the driver is faster than faery alone. faery has no decoder
    for 5-byte files. Where faery, which writes the files, is not installed, ``source`` says so and is all.
    """
    if importlib.util.find_spec("faery") is None:
        return {"event_files.source": f"none: the package faery is not installed ({how_to_install('events')})"}
    numbers: dict[str, Any] = {
        "event_files.source": f"made: {EVENTS} seeded random events at {EVENTS_PER_S} events/s, encoded by faery",
    }
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as folder:
        _write(Path(folder))
        for kind, (name, size) in FILES.items():
            found = _turns(kind, Path(folder) / name, size, seconds / len(FILES))
            numbers |= {f"event_files.{kind}.{key}": value for key, value in found.items()}
    return numbers


def _turns(kind: str, path: Path, size: tuple[int, int] | None, seconds: float) -> dict[str, Any]:
    config = EventFileConfig(path=path, geometry=size, pace="fast")
    ours_s: list[float] = []
    faery_s: list[float] = []
    end_s = time.perf_counter() + seconds
    while not ours_s or time.perf_counter() < end_s:
        if kind != "five_bytes":
            faery_s.append(_timed(lambda: sum(map(len, _faery(kind, path)))))
        ours_s.append(_timed(lambda: _play(config)))
    numbers: dict[str, Any] = {"events_per_s": round(EVENTS / min(ours_s))}
    if faery_s:
        ratio = statistics.median(alone / ours for alone, ours in zip(faery_s, ours_s, strict=True))
        numbers |= {"faery_events_per_s": round(EVENTS / min(faery_s)), "ratio": round(ratio, 3)}
    return numbers


def _timed(run: Callable[[], int]) -> float:
    begin_s = time.thread_time()
    count = run()
    spent_s = time.thread_time() - begin_s
    if count != EVENTS:
        raise ValueError(f"{count} of {EVENTS} events came out of a file")
    return spent_s


def _play(config: EventFileConfig) -> int:
    count = 0
    with closing(FileEvents("bench", config)) as source:
        source.open()
        try:
            while True:
                packet = source.read(0)
                count += 0 if packet is None else len(packet.data)
        except EndOfInput:
            return count


def _faery(kind: str, path: Path) -> Iterator[npt.NDArray[Any]]:
    from faery.extension import aedat, dat, es, evt

    if kind == "aedat4":
        with aedat.Decoder(path) as packets:
            yield from (packet for _, packet in packets)
    elif kind == "dat":
        with dat.Decoder(path, SIZE, "dat2") as events:
            yield from events
    elif kind == "es":
        with es.Decoder(path, 0) as events:
            yield from events
    else:
        with evt.Decoder(path, SIZE, kind) as packets:
            yield from (packet["events"] for packet in packets if "events" in packet)


def _write(folder: Path) -> None:
    import faery

    dice = np.random.default_rng(0)
    events = np.zeros(EVENTS, faery.EVENTS_DTYPE)
    events["t"] = np.sort(dice.integers(0, EVENTS * 1_000_000 // EVENTS_PER_S, EVENTS))
    events["x"], events["y"] = dice.integers(0, SIZE[0], EVENTS), dice.integers(0, SIZE[1], EVENTS)
    events["on"] = dice.integers(0, 2, EVENTS)
    for kind, (name, _) in FILES.items():
        if kind != "five_bytes":
            version = kind if kind.startswith("evt") else None
            faery.events_stream_from_array(events, SIZE).to_file(folder / name, version=version)
    words = np.zeros((EVENTS, 5), np.uint8)
    words[:, 0], words[:, 1] = events["x"] % FIVE_BYTES_SIZE[0], events["y"] % FIVE_BYTES_SIZE[1]
    tail = (events["on"].astype(np.uint32) << 23 | events["t"] % FIVE_BYTES_MAX_US).astype(">u4")
    words[:, 2:] = tail.view(np.uint8).reshape(-1, 4)[:, 1:]
    (folder / FILES["five_bytes"][0]).write_bytes(words.tobytes())
