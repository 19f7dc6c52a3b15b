"""Every serial driver at its sensor's top rate: the parser alone, and the whole driver beside a bare pyserial read."""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from serial import Serial

from agent.cli.command import CommandError
from drivers.base import Driver, DriverError
from drivers.event_camera.edvs import Edvs
from drivers.event_camera.edvs_events import EventScanner
from drivers.lib.serial_sensor import SerialSensor
from drivers.registry import driver_class
from hil.bench import event_files
from hil.emulators.case import Case, cases
from hil.emulators.edvs import encode_events, scene
from hil.emulators.serial_port import SerialEmulator

CHUNK_S = 0.05
"""So much of the stream a parser is given at once, as the drivers do."""
EDVS_CHUNK_S = 0.02
PARSE_SHARE = 0.25
"""Of the time that a case has; driver and bare read have the rest in halves."""
BARE_READ_BYTES = 4096
READ_TIMEOUT_S = 0.5
EVENT_FILES_S = 6.0
SETTLE_S = 0.2
BITS_PER_BYTE = 10


def measure(seconds: float) -> dict[str, Any]:
    """Of each parser alone: rows (or events) and MB per second; of each driver: its share of a core at the top rate.

    ``times_sensor``: how many such sensors the parser could follow; ``times_line``: how many lines that are always
    full. Raises CommandError when a driver gives nothing.
    """
    numbers: dict[str, Any] = {}
    known = cases()
    for name, case in known.items():
        each_s = seconds / len(known)
        numbers |= {f"{name}.{key}": value for key, value in _one(name, case, each_s).items()}
    numbers |= event_files.measure(EVENT_FILES_S)
    return numbers


def _one(name: str, case: Case, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as folder:
        link = Path(folder) / "port"
        cls = driver_class(case.kind)
        driver = cls(name, cls.Config.model_validate({"port": str(link), **case.settings}))
        try:
            numbers = _parser(driver, case.emulator(link), seconds * PARSE_SHARE)
            spent_s = seconds * (1 - PARSE_SHARE) / 2
            with _played(name, link) as dropped:
                numbers |= _driver(driver, spent_s)
            numbers["dropped_rows"] = dropped[0]
            if not case.asked:
                with _played(name, link):
                    numbers |= _bare(link, driver.cfg.baud, case.start, spent_s)
        except DriverError as error:
            raise CommandError(f"{name}: {error}") from error
    return numbers


def _parser(driver: Driver[Any], emulator: SerialEmulator, seconds: float) -> dict[str, Any]:
    """The parser alone, from memory; nothing for a sensor that must be asked."""
    if isinstance(driver, Edvs):
        scanner = EventScanner("16")
        wire, stream_s, gathered_s = encode_events(*scene(), "16"), 1.0, EDVS_CHUNK_S

        def feed(chunk: bytes) -> int:
            return len(scanner.feed(chunk, quiet=False).x)

    elif isinstance(driver, SerialSensor):
        parser, clock = driver.new_parser(), _Clock(driver.cfg.baud)
        count = max(20, round(emulator.rate_hz))
        wire, stream_s, gathered_s = b"".join(emulator.encode(0, count)), count / emulator.rate_hz, CHUNK_S

        def feed(chunk: bytes) -> int:
            return len(parser.feed(chunk, clock.after(len(chunk))).values)

    else:
        raise CommandError(f"{driver.name}: no parser of this driver is known here")
    if not wire:
        return {}
    sensor_bytes_per_s, line_bytes_per_s = len(wire) / stream_s, driver.cfg.baud / BITS_PER_BYTE
    _, sensor_speed = _speed(feed, wire, sensor_bytes_per_s * gathered_s, seconds / 2)
    rows_per_s, line_speed = _speed(feed, wire, line_bytes_per_s * gathered_s, seconds / 2)
    return {
        "parsed_per_s": round(rows_per_s),
        "mb_per_s": round(line_speed / 1e6, 2),
        "times_sensor": round(sensor_speed / sensor_bytes_per_s, 1),
        "times_line": round(line_speed / line_bytes_per_s, 1),
    }


def _speed(feed: Callable[[bytes], int], wire: bytes, chunk_bytes: float, seconds: float) -> tuple[float, float]:
    """Rows and bytes per second of this thread's CPU time, of a stream that comes in pieces of that size."""
    chunks = _cut(wire * math.ceil(chunk_bytes / len(wire)), max(1, round(chunk_bytes)))
    rows = parsed = 0
    begin_s = now_s = time.thread_time()
    while now_s - begin_s < seconds:
        for chunk in chunks:
            rows += feed(chunk)
            parsed += len(chunk)
        now_s = time.thread_time()
    return rows / (now_s - begin_s), parsed / (now_s - begin_s)


def _cut(wire: bytes, size: int) -> list[bytes]:
    return [wire[at : at + size] for at in range(0, len(wire), size)]


class _Clock:
    """When bytes would have come."""

    def __init__(self, baud: int) -> None:
        self._byte_ns = BITS_PER_BYTE * 1_000_000_000 // baud
        self._now_ns = time.monotonic_ns()

    def after(self, count: int) -> int:
        self._now_ns += count * self._byte_ns
        return self._now_ns


@contextmanager
def _played(name: str, link: Path) -> Iterator[list[int]]:
    """The sensor in a process of its own; afterwards the list has what its line dropped. Raises CommandError."""
    dropped: list[int] = []
    command = [sys.executable, "-m", "hil.bench.play", name, str(link)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            if child.stdout is None or child.stdout.readline().strip() != "ready":
                raise CommandError(f"the emulator of {name} did not start")
            yield dropped
            told, _ = child.communicate()
            dropped.append(json.loads(told)["dropped_rows"])
        finally:
            child.kill()


def _driver(driver: Driver[Any], seconds: float) -> dict[str, Any]:
    """CPU of the thread that reads, as a share of a core; the emulator's is not in it."""
    with closing(driver):
        driver.open()
        rows = _read(driver, SETTLE_S)[0]
        begin_cpu_s, begin_s = time.thread_time(), time.perf_counter()
        rows, lost = _read(driver, seconds)
        spent_s = time.perf_counter() - begin_s
        share = (time.thread_time() - begin_cpu_s) / spent_s
    if not rows:
        raise CommandError(f"{driver.name}: the driver gave nothing in {seconds:.1f} s")
    return {"live_per_s": round(rows / spent_s, 1), "lost": lost, "cpu_share": round(share, 4)}


def _read(driver: Driver[Any], seconds: float) -> tuple[int, int]:
    rows = lost = 0
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        packet = driver.read(READ_TIMEOUT_S)
        if packet is not None:
            rows, lost = rows + len(packet.data), lost + packet.lost
    return rows, lost


def _bare(link: Path, baud: int, start: tuple[bytes, ...], seconds: float) -> dict[str, Any]:
    """The same bytes, read by pyserial and thrown away."""
    with Serial(str(link), baud, timeout=CHUNK_S, exclusive=True) as port:
        for command in start:
            port.write(command)
            port.read(BARE_READ_BYTES)
        received = 0
        begin_cpu_s, begin_s = time.thread_time(), time.perf_counter()
        while time.perf_counter() - begin_s < seconds:
            received += len(port.read(BARE_READ_BYTES))
        spent_s = time.perf_counter() - begin_s
        share = (time.thread_time() - begin_cpu_s) / spent_s
    return {"bare_bytes_per_s": round(received / spent_s), "bare_cpu_share": round(share, 4)}
