"""``axond record``: what one sensor says, into a file that ``axond replay`` and the ``replay`` driver read."""

import argparse
import time
from contextlib import closing
from pathlib import Path

from agent import config
from agent.cli.command import Command, CommandError, add_config, positive
from drivers.base import EndOfInput
from drivers.packet import Packet
from drivers.recording import save


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sensor", help="name of the sensor in the configuration")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.npz", help="file to write")
    parser.add_argument("--seconds", type=positive, default=10.0, help="how long (default: 10)")
    add_config(parser)


def _run(options: argparse.Namespace) -> int:
    sensors = config.load(options.config).sensors
    if options.sensor not in sensors:
        raise CommandError(f"{options.config}: no sensor {options.sensor!r}; there are {', '.join(sensors) or 'none'}")
    driver = sensors[options.sensor].make()
    packets: list[Packet] = []
    with closing(driver):
        driver.open()
        deadline_s = time.monotonic() + options.seconds
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                packet = driver.read(min(left_s, 0.5))
            except EndOfInput:
                break
            if packet is not None:
                packets.append(packet)
    if not packets:
        raise CommandError(f"sensor {options.sensor} gave nothing in {options.seconds:g} s; nothing was written")
    save(options.out, driver.info(), packets)
    samples = sum(len(packet.data) for packet in packets)
    print(f"{options.out}: {samples} samples of {options.sensor}, {sum(p.lost for p in packets)} lost")
    return 0


COMMAND = Command(
    "record",
    "record a sensor into a file",
    """Record one sensor of the configuration into a file that axond replay and the driver "replay" read.

  axond record imu0 --seconds 30 -o walk.npz --config axond.toml
""",
    _configure,
    _run,
)
