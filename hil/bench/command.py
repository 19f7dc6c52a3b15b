"""``axond bench``: numbers, each with its baseline in the same run; and two rigs that fail when something is lost."""

import argparse
from importlib import import_module
from pathlib import Path

from agent.cli.command import Command, CommandError, add_json, positive, print_json, whole

HELP = {
    "path": "a captured audio sample until its result is durable",
    "backends": "every backend against a bare loop around its runtime, per model",
    "drivers": "every serial driver at its sensor's top rate",
    "locate": "an object in front of a transducer array: how near its positions are, how long they take",
    "encoders": "the front end of every shipped model at its sensor's rate",
    "compare": "shipped models beside small int8 CNNs on TFLite (make compare trains those)",
    "sensors": "five sensors at full speed under a real agent: nothing may be lost",
}


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="bench", metavar="BENCH", required=True)
    for name, text in HELP.items():
        bench = sub.add_parser(name, help=text)
        bench.add_argument("--seconds", type=positive, default=30.0, help="how long to measure (default: 30)")
        add_json(bench)
    rig = sub.add_parser("replug", help="a sensor unplugged and plugged in again: each time it is back within 1 s")
    rig.add_argument("--cycles", type=whole(1, 1_000_000), default=1000, help="how often (default: 1000, 8 minutes)")
    add_json(rig)
    listen = sub.add_parser("listen", help="a word detector through an hour of sound: hits, false alarms, memory")
    listen.add_argument("--hours", type=positive, default=1.0, help="how much sound (default: 1)")
    listen.add_argument("--bundle", default="wake-words", metavar="NAME", help="default: wake-words")
    listen.add_argument("--data", type=Path, metavar="FOLDER", help="words: a dataset whose test part is said")
    listen.add_argument("--noise", type=Path, metavar="FOLDER", help="sounds between and under the words: a dataset")
    listen.add_argument("--snr-db", type=float, default=20.0, help="words above the sounds under them (default: 20)")
    add_json(listen)


def _run(options: argparse.Namespace) -> int:
    try:
        bench = import_module(f"hil.bench.{options.bench}")
    except ImportError as error:
        raise CommandError(
            f"this bench needs more packages: pip install 'axond[onnx,tflite,build,locate]' ({error})"
        ) from error
    if options.bench == "listen":
        numbers = bench.measure(options.hours, options.bundle, options.data, options.noise, options.snr_db)
    else:
        numbers = bench.measure(options.cycles if options.bench == "replug" else options.seconds)
    if options.json:
        print_json(numbers)
    else:
        for key, value in numbers.items():
            print(f"{key:36s} {value}")
    return 1 if numbers.get("faults") else 0


COMMAND = Command(
    "bench",
    "measure this machine",
    """Measure on this machine; every number comes with its baseline from the same run, since machines are noisy.

  axond bench path   a captured audio sample until its result is durable: whole way, model time, our overhead;
                     start-up time and memory
  axond bench backends
                     time per step of every backend that is here, for the shipped models and two made networks, beside
                     a bare loop around the same runtime; what a child process adds to a call; numpy driven by events;
                     and the synaptic operations that a chip would count
  axond bench drivers
                     every serial driver at its sensor's top rate: the parser alone, and the CPU share of the whole
                     driver beside a bare pyserial read of the same bytes
  axond bench locate
                     made distances of a still and a moving object to squares of 4 and rings of 24 transducers, 1 cm of
                     noise and 10 % outliers: share of tracked positions within 5 cm and time per update, beside
                     single rows and plain least squares
  axond bench encoders
                     the front end of every shipped model: percent of a core at its sensor's rate
  axond bench compare
                     shipped models and the small int8 CNNs that make compare trains on the same recordings: accuracy
                     and time of front end and network on the same test windows in the same run

Rigs, with exit code 1 and the reasons under ``faults`` when something went wrong:

  axond bench sensors
                     a real agent with five sensors on pseudo-terminals at full speed: IMUs at 200 and 100 Hz, 24
                     transducers at 20 Hz, 16 kHz of sound, 500 000 events/s. Compares what they made with what came
                     (missing must be 0), tells the jitter of capture times, and the agent's CPU (without start-up),
                     memory and context switches, beside a bare read of the same ports
  axond bench replug a real agent whose sensor is unplugged and comes back behind its link, often as another terminal:
                     time from return to first packet, descriptors and threads before and after
  axond bench listen an hour of continuous sound with a word every 15 s through a detector, as fast as it goes: hits,
                     false alarms per hour, memory at start, middle and end, CPU time. Words and sounds are the test
                     parts of --data and --noise (default: the wake words and ESC-10 where they are found), else made
                     by espeak-ng and of noise, which says little about people

  axond bench path --seconds 60 --json
  axond bench sensors --seconds 600 --json
  axond bench replug --cycles 1000
""",
    _configure,
    _run,
)
