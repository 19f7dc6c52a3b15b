"""``axond record``: what one sensor says, into a file that ``axond replay`` and the ``replay`` driver read."""

import argparse
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from agent import config
from agent.cli.command import Command, CommandError, add_config, positive
from drivers.base import Disconnected, Driver, EndOfInput
from drivers.packet import Packet
from drivers.recording import save

READ_TIMEOUT_S = 0.5


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sensor", help="name of the sensor in the configuration")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.npz", help="file to write")
    parser.add_argument("--seconds", type=positive, default=10.0, help="how long, by capture time (default: 10)")
    add_config(parser)


def _run(options: argparse.Namespace) -> int:
    out: Path = options.out
    sensors = config.load(options.config, whole=False).sensors
    if options.sensor not in sensors:
        raise CommandError(f"{options.config}: no sensor {options.sensor!r}; there are {', '.join(sensors) or 'none'}")
    if out.suffix != ".npz" or (out.exists() and not out.is_file()) or not out.parent.is_dir():
        raise CommandError(f"{out}: expected a file FILE.npz in a folder that exists")
    driver = sensors[options.sensor].make()
    packets = _packets(driver, options.seconds)
    if not packets:
        raise CommandError(f"sensor {options.sensor} gave nothing in {options.seconds:g} s; nothing was written")
    try:
        save(out, driver.info(), packets)
    except OSError as error:
        raise CommandError(f"{out}: cannot be written ({error.strerror})") from error
    samples = sum(len(packet.data) for packet in packets)
    print(f"{out}: {samples} samples of {options.sensor}, {sum(p.lost for p in packets)} lost")
    return 0


def _packets(driver: Driver[Any], seconds: float) -> list[Packet]:
    """Some seconds of a sensor; fewer if it ends, goes away, or the user has had enough (Ctrl-C)."""
    packets: list[Packet] = []
    with closing(driver):
        driver.open()
        deadline_s = time.monotonic() + seconds + READ_TIMEOUT_S
        try:
            while time.monotonic() < deadline_s:
                packet = driver.read(READ_TIMEOUT_S)
                if packet is None:
                    continue
                packets.append(packet)
                if packet.t0_ns + packet.dt_ns * len(packet.data) - packets[0].t0_ns >= seconds * 1e9:
                    break
        except EndOfInput:
            return packets
        except Disconnected as error:
            print(f"axond: {error}; what came before is kept", file=sys.stderr)
        except KeyboardInterrupt:
            print("axond: stopped early; what came so far is kept", file=sys.stderr)
    return packets


COMMAND = Command(
    "record",
    "record a sensor into a file",
    """Record one sensor of the configuration into a file that axond replay and the driver "replay" read.
Ctrl-C ends it early and keeps what came.

  axond record imu0 --seconds 30 -o walk.npz --config axond.toml
""",
    _configure,
    _run,
)
