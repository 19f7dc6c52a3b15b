"""The sensors of ``axond bench drivers`` at their top rates, and a process that plays one of them.

``python -m hil.bench.play CASE LINK`` plays until its standard input ends, then tells what the line dropped.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hil.emulators.a02 import A02Emulator
from hil.emulators.bno08x_rvc import Bno08xRvcEmulator
from hil.emulators.edvs import EdvsEmulator
from hil.emulators.imu_csv import CsvEmulator
from hil.emulators.mavlink import MavlinkEmulator
from hil.emulators.maxbotix import MaxbotixEmulator
from hil.emulators.serial_pcm import SerialPcmEmulator
from hil.emulators.serial_port import SerialEmulator
from hil.emulators.tfmini import TfminiEmulator
from hil.emulators.tick_frames import WAVEFORM, TextArrayEmulator, TickFrameEmulator
from hil.emulators.urm07 import Urm07Emulator
from hil.emulators.us100 import Us100Emulator
from hil.emulators.vectornav import VectornavEmulator
from hil.emulators.witmotion import WitmotionEmulator
from hil.emulators.xsens import XsensEmulator

EVENTS_PER_S = 300_000
"""Four bytes each: all that 12 Mbaud carry."""
ROWS = 500


@dataclass(frozen=True, slots=True)
class Case:
    """One driver, its settings at the sensor's top rate, and the sensor."""

    kind: str
    settings: dict[str, Any]
    emulator: Callable[[Path], SerialEmulator]
    start: tuple[bytes, ...] = field(default=())
    """What a bare reader must write before anything comes."""
    asked: bool = False
    """Gives nothing unless it is asked for each row: there is no stream that a bare reader could read."""


def _words(columns: int) -> Any:
    return np.random.default_rng(0).integers(-3000, 3000, (ROWS, columns)).astype(np.int16)


def _numbers() -> Any:
    return np.random.default_rng(0).normal(0, 0.9, (ROWS, 6)).astype(np.float32)


def _distances(columns: int) -> Any:
    return np.random.default_rng(0).integers(310, 1400, (ROWS, columns))


def events() -> tuple[Any, Any, Any, Any]:
    """Times in us, x, y and polarity of a second of events."""
    rng = np.random.default_rng(0)
    x, y, on = (rng.integers(0, most, EVENTS_PER_S).astype(np.uint8) for most in (128, 128, 2))
    return np.sort(rng.integers(0, 1_000_000, EVENTS_PER_S)), x, y, on


def _edvs(link: Path) -> SerialEmulator:
    return EdvsEmulator(*events(), link)


def _tone(link: Path) -> SerialEmulator:
    return SerialPcmEmulator((8000 * np.sin(np.arange(16_000) * 0.17)).astype(np.int16), 16_000, link, baud=500_000)


CASES: dict[str, Case] = {
    "imu.witmotion": Case(
        "imu.witmotion",
        {"baud": 115200, "rate_hz": 200},
        lambda link: WitmotionEmulator(_words(6), 200, link, timed=False),
    ),
    "imu.bno08x_rvc": Case("imu.bno08x_rvc", {"baud": 115200}, lambda link: Bno08xRvcEmulator(_words(6), link)),
    "imu.xsens": Case(
        "imu.xsens",
        {"baud": 921600, "rate_hz": 400},
        lambda link: XsensEmulator(_numbers(), 400, link, baud=921600),
    ),
    "imu.vectornav.ascii": Case(
        "imu.vectornav",
        {"baud": 921600, "rate_hz": 200},
        lambda link: VectornavEmulator(_numbers(), 200, link, baud=921600),
    ),
    "imu.vectornav.binary": Case(
        "imu.vectornav",
        {"baud": 921600, "rate_hz": 800, "output": "binary"},
        lambda link: VectornavEmulator(_numbers(), 800, link, baud=921600, output="binary"),
    ),
    "imu.mavlink": Case(
        "imu.mavlink",
        {"baud": 921600, "rate_hz": 200},
        lambda link: MavlinkEmulator(_words(9), 200, link, baud=921600),
    ),
    "imu.csv": Case(
        "imu.csv",
        {"baud": 115200, "rate_hz": 119},
        lambda link: CsvEmulator(_numbers().astype(np.float64), 119, link),
    ),
    "ultrasonic.maxbotix": Case(
        "ultrasonic.maxbotix",
        {"baud": 9600, "rate_hz": 20},
        lambda link: MaxbotixEmulator(_distances(1), 20, link),
    ),
    "ultrasonic.a02": Case(
        "ultrasonic.a02", {"baud": 9600, "rate_hz": 20}, lambda link: A02Emulator(_distances(1), 20, link)
    ),
    "ultrasonic.us100": Case(
        "ultrasonic.us100", {"baud": 9600, "rate_hz": 15}, lambda link: Us100Emulator(_distances(1), link), asked=True
    ),
    "ultrasonic.urm07": Case(
        "ultrasonic.urm07", {"baud": 19200, "rate_hz": 20}, lambda link: Urm07Emulator(_distances(1), link), asked=True
    ),
    "ultrasonic.tfmini": Case(
        "ultrasonic.tfmini",
        {"baud": 115200, "rate_hz": 1000},
        lambda link: TfminiEmulator(_distances(3), 1000, link),
    ),
    "ultrasonic.array.binary": Case(
        "ultrasonic.array",
        {"baud": 115200, "rate_hz": 100, "transducers": 24},
        lambda link: TickFrameEmulator(_distances(24), 100, link),
    ),
    "ultrasonic.array.text": Case(
        "ultrasonic.array",
        {"baud": 115200, "rate_hz": 20, "transducers": 24, "format": "text", "unit": "mm"},
        lambda link: TextArrayEmulator(_distances(24), 20, link),
    ),
    "ultrasonic.echo": Case(
        "ultrasonic.echo",
        {"baud": 921600, "rate_hz": 20},
        lambda link: TickFrameEmulator(
            np.random.default_rng(0).integers(-32768, 32768, (50, 1500)).astype(np.int16),
            20,
            link,
            kind=WAVEFORM,
            baud=921600,
        ),
    ),
    "audio.serial_pcm": Case("audio.serial_pcm", {"baud": 500_000, "rate_hz": 16_000}, _tone),
    "event_camera.edvs": Case("event_camera.edvs", {"baud": 12_000_000}, _edvs, start=(b"R\n", b"!U0\n!E2\n", b"E+\n")),
}


def main() -> int:
    """Play the case that the first argument names on the link that the second one names."""
    name, link = sys.argv[1:3]
    with CASES[name].emulator(Path(link)) as emulator:
        print("ready", flush=True)
        sys.stdin.read()
        dropped = emulator.dropped_rows
    print(json.dumps({"dropped_rows": dropped}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
