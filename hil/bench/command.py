"""``axond bench``: numbers, each with its baseline in the same run."""

import argparse

from agent.cli.command import Command, add_json, positive, print_json
from hil.bench import drivers, onnx, path

BENCHES = {"path": path, "onnx": onnx, "drivers": drivers}


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bench", choices=sorted(BENCHES), help="what to measure")
    parser.add_argument("--seconds", type=positive, default=30.0, help="how long to measure (default: 30)")
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    numbers = BENCHES[options.bench].measure(options.seconds)
    if options.json:
        print_json(numbers)
    else:
        for key, value in numbers.items():
            print(f"{key:36s} {value}")
    return 0


COMMAND = Command(
    "bench",
    "measure this machine",
    """Measure on this machine; every number comes with its baseline from the same run, since machines are noisy.

  axond bench path   a captured audio sample until its result is durable: whole way, model time, our overhead;
                     start-up time and memory
  axond bench onnx   the ONNX backend against a bare session.run loop with IO binding
  axond bench drivers
                     every serial driver at its sensor's top rate: the parser alone, and the CPU share of the whole
                     driver beside a bare pyserial read of the same bytes

  axond bench path --seconds 60 --json
""",
    _configure,
    _run,
)
