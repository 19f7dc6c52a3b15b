"""``axond model teach``: one label more from a few examples, as a child bundle."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from agent import config
from agent.cli.command import CommandError, add_config, add_json, print_json, whole
from agent.cli.model_examples import from_files
from agent.pipeline import LATE_NS
from drivers.base import Disconnected, Driver, EndOfInput
from drivers.extras import how_to_install
from models.base import Window
from models.bundle import Bundle
from models.registry import make_encoder, open_bundle
from models.window import Windower
from models.window_events import EventWindower, make_windower

READ_TIMEOUT_S = 0.5
PATIENCE_S = 60.0
"""A live sensor may take so long to give the next window."""
FEW = 3
DESCRIPTION = """Teach a model a new label, or with --user one more person's way of a known one, from about five
examples. Only one row of the last layer is new; the child is a bundle like any other, and axond model undo gives its
parent back.

  axond model teach spoken-digits hello --from hello1.wav hello2.wav hello3.wav hello4.wav hello5.wav -o ./mine
  axond model teach spoken-digits hello --from mic0 --windows 5 --config axond.toml -o ./mine
  axond record imu0 --seconds 30 -o wave.npz --config axond.toml
  axond model teach activity waving --from wave.npz -o ./mine
  axond model undo ./mine -o ./before
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("label", help="what the examples are of")
    parser.add_argument("--from", dest="source", nargs="+", required=True, metavar="SENSOR|FILE", help="a sensor of "
                        "the configuration; or files: .wav (mono, 16 bits, one example each) or .npz of axond "
                        "record")  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="CHILD", help="folder to write")
    parser.add_argument("--user", action="store_true", help="LABEL is known; the examples are of one more user")
    parser.add_argument("--windows", type=whole(1, 1000), default=5, metavar="N",
                        help="of a live sensor: how many examples (default: 5)")  # fmt: skip
    add_config(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    try:
        from models import teach
    except ImportError as error:
        raise CommandError(f"teaching needs more packages: {how_to_install('build')} ({error})") from error
    parent = open_bundle(options.bundle, [])
    teach.check_lesson(parent, options.label, options.out, user=options.user)
    paths = [Path(name) for name in options.source]
    if any(path.suffix or "/" in str(path) or path.exists() for path in paths):
        windows = from_files(parent, paths)
    elif len(paths) == 1:
        windows = _live(options, parent)
    else:
        raise CommandError(f"--from {' '.join(options.source)}: expected one sensor, or files")
    if len(windows) < FEW:
        print(f"axond: {len(windows)} examples are few; five or more are better", file=sys.stderr)
    try:
        taught = teach.teach(parent, options.label, windows, options.out, user=options.user)
    except ImportError as error:
        raise CommandError(f"teaching needs more packages: {how_to_install('build')} ({error})") from error
    lesson, child = taught.lesson, taught.bundle
    if options.json:
        print_json({
            "bundle": child.id, "path": str(child.path), "parent": parent.id, "label": options.label,
            "examples": taught.windows, "found_left_out": lesson.found, "lost_points": round(lesson.lost_points, 2),
        })  # fmt: skip
        return 0
    print(f"{child.path}: {child.id}, knows {options.label!r} from {taught.windows} examples")
    if lesson.found is not None:
        print(f"  left out of learning in turn, {lesson.found:.0%} of the examples' distorted copies are found")
    print(f"  the other labels lose {lesson.lost_points:.1f} points by the model's own statistics")
    print("  try it with axond model eval; axond model undo gives the parent back")
    return 0


def _live(options: argparse.Namespace, parent: Bundle) -> list[Window]:
    """As many windows as asked for. Ctrl-C ends it early with those that came. Raises CommandError without any."""
    name = options.source[0]
    sensors = config.load(options.config, whole=False).sensors
    if name not in sensors:
        known = ", ".join(sensors) or "none"
        raise CommandError(f"{name!r} is no file, and no sensor of {options.config}; there are {known}")
    driver = sensors[name].make()
    windows: list[Window] = []
    with closing(driver):
        driver.open()
        make_encoder(parent, driver.info())  # before anybody says anything
        print(f"{name}: now do {options.label!r}, {options.windows} times, with pauses", file=sys.stderr)
        try:
            for window in _windows(driver, make_windower(parent.windows, driver.info())):
                windows.append(window)
                print(f"  {len(windows)} of {options.windows}", file=sys.stderr, flush=True)
                if len(windows) == options.windows:
                    break
        except EndOfInput:
            print(f"axond: {name} has ended; what came before is used", file=sys.stderr)
        except Disconnected as error:
            print(f"axond: {error}; what came before is used", file=sys.stderr)
        except KeyboardInterrupt:
            print("axond: stopped early; what came so far is used", file=sys.stderr)
    if not windows:
        raise CommandError(
            f"no window began in what {name} gave until it ended, or for {PATIENCE_S:.0f} s; see axond sensors tail"
        )
    return windows


def _windows(driver: Driver[Any], windower: Windower | EventWindower) -> Iterator[Window]:
    """As they come, until none has come for ``PATIENCE_S``."""
    since_s = time.monotonic()
    while time.monotonic() - since_s < PATIENCE_S:
        packet = driver.read(READ_TIMEOUT_S)
        late_ns = time.monotonic_ns() - LATE_NS
        for window in windower.advance(late_ns) if packet is None else windower.push(packet):
            since_s = time.monotonic()
            yield window
