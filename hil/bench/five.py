"""The five sensors of ``axond bench sensors`` at full speed, and a process that plays one of them.

``python -m hil.bench.five NAME LINK`` obeys lines on its standard input: ``go`` plays, ``hush`` is silent and tells
what was made; it ends with its input.

Events: 12 Mbaud carry 1.2 MB/s, so 500 000 events per second fit that line only without time stamps (format E0); with
them the shortest format (E1, three bytes each) ends at 400 000. A pseudo-terminal does not pace, so 500 000 per second
are played in E1: more bytes than the camera's own line can bring, and all of them with the camera's time.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hil.emulators.case import Case, cases
from hil.emulators.edvs import EdvsEmulator
from hil.emulators.serial_port import SerialEmulator
from hil.emulators.tick_frames import TickFrameEmulator
from hil.emulators.witmotion import WitmotionEmulator

EVENTS_PER_S = 500_000
AUDIO_BUFFER = 256
TRANSDUCERS = 24
ARRAY_HZ = 20


@dataclass(frozen=True, slots=True)
class Sensor:
    """One of the five."""

    case: Case
    rate_hz: float
    """Samples or events per second; each lies on that grid exactly."""
    row_samples: int = 1
    """Samples in a row of the emulator."""
    held_samples: int = 0
    """The driver's parser always keeps so many back until more come."""
    commanded: bool = False
    """Starts when the driver says so, not when it has power."""


def _events(link: Path) -> SerialEmulator:
    rng = np.random.default_rng(0)
    x, y, on = (rng.integers(0, most, EVENTS_PER_S).astype(np.uint8) for most in (128, 128, 2))
    return EdvsEmulator(np.arange(EVENTS_PER_S) * 1_000_000 // EVENTS_PER_S, x, y, on, link)


def _imu(link: Path) -> SerialEmulator:
    """With all its frames, time and angles as well."""
    return WitmotionEmulator(np.random.default_rng(0).integers(-3000, 3000, (500, 6)).astype(np.int16), 200, link)


def _array(link: Path) -> SerialEmulator:
    rows = np.random.default_rng(0).integers(310, 1400, (500, TRANSDUCERS))
    return TickFrameEmulator(rows, ARRAY_HZ, link)


_CASES = cases()
SENSORS: dict[str, Sensor] = {
    "witmotion": Sensor(replace(_CASES["imu.witmotion"], emulator=_imu), 200),
    "bno08x": Sensor(_CASES["imu.bno08x_rvc"], 100),
    "array": Sensor(
        Case(
            "ultrasonic.array",
            {"baud": 115200, "rate_hz": ARRAY_HZ, "transducers": TRANSDUCERS, "format": "binary"},
            _array,
        ),
        ARRAY_HZ,
    ),
    "microphone": Sensor(_CASES["audio.serial_pcm"], 16_000, row_samples=AUDIO_BUFFER, held_samples=128),
    "events": Sensor(
        replace(
            _CASES["event_camera.edvs"],
            settings={"baud": 12_000_000, "format": 1},
            emulator=_events,
            start=(b"R\n", b"!U0\n!E1\n", b"E+\n"),
        ),
        EVENTS_PER_S,
        commanded=True,
    ),
}


def made(sensor: Sensor, emulator: SerialEmulator) -> int:
    """Samples or events that the sensor gave to its line so far, whatever the line did to them."""
    if isinstance(emulator, EdvsEmulator):
        return emulator.sent_events
    return (emulator.sent_rows + emulator.dropped_rows) * sensor.row_samples


def main() -> int:
    """Play the sensor that the first argument names on the link that the second one names."""
    name, link = sys.argv[1:3]
    sensor = SENSORS[name]
    emulator = sensor.case.emulator(Path(link))
    # What comes before the driver listens would be counted, and never be read.
    emulator.silence(not sensor.commanded)
    with emulator:
        print("ready", flush=True)
        for line in sys.stdin:
            hush = line.strip() == "hush"
            emulator.silence(hush)
            if hush:
                told = {"made": made(sensor, emulator), "dropped_rows": emulator.dropped_rows}
                print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
