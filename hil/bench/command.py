"""``axond bench``: numbers, each with its baseline in the same run; and rigs that fail when something is lost."""

import argparse
from importlib import import_module
from pathlib import Path

from agent.cli.command import Command, CommandError, add_json, positive, print_json, whole
from drivers.extras import how_to_install

HELP = {
    "path": ("a captured audio sample until its result is durable", 30.0),
    "backends": ("every backend against a bare loop around its runtime, per model", 30.0),
    "drivers": ("every serial driver at its sensor's top rate", 30.0),
    "locate": ("an object in front of a transducer array: how near its positions are, how long they take", 30.0),
    "encoders": ("the front end of every shipped model at its sensor's rate", 30.0),
    "compare": ("shipped models beside small int8 CNNs on TFLite (make compare trains those)", 30.0),
    "store": ("the outbox beside bare SQLite with the same durability", 30.0),
    "quota": ("a full outbox at 3000 results/s: its bytes are exact, the hub learns what was given up", 150.0),
    "memory": ("a day's worth of results with outages in minutes: agent and hub must not grow", 320.0),
    "sensors": ("five sensors at full speed under a real agent: nothing may be lost", 30.0),
}
"""Of what is measured for some seconds, with the default."""
BROKERS = ("mosquitto", "mosquitto-tuned", "ejabberd", "rabbitmq", "nats")


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="bench", metavar="BENCH", required=True)
    for name, (text, seconds) in HELP.items():
        bench = sub.add_parser(name, help=text)
        bench.add_argument("--seconds", type=positive, default=seconds, help=f"how long (default: {seconds:g})")
        bench.set_defaults(arguments=("seconds",))
    _configure_rigs(sub)
    listen = sub.add_parser("listen", help="a word detector through an hour of sound: hits, false alarms, memory")
    listen.add_argument("--hours", type=positive, default=1.0, help="how much sound (default: 1)")
    listen.add_argument("--bundle", default="wake-words", metavar="NAME", help="default: wake-words")
    listen.add_argument("--data", type=Path, metavar="FOLDER", help="words: a dataset whose test part is said")
    listen.add_argument("--noise", type=Path, metavar="FOLDER", help="sounds between and under the words: a dataset")
    listen.add_argument("--snr-db", type=float, default=20.0, help="words above the sounds under them (default: 20)")
    listen.set_defaults(arguments=("hours", "bundle", "data", "noise", "snr_db"))
    teach = sub.add_parser("teach", help="a new word or sound from five examples: how many others of it are found")
    teach.add_argument("--bundle", default="spoken-digits", metavar="NAME", help="default: spoken-digits")
    teach.add_argument("--data", type=Path, metavar="FOLDER", help="of what the model knows (default: audio_fsdd)")
    teach.add_argument("--word", action="append", default=[], help="default: twelve, and sounds; may be repeated")
    teach.set_defaults(arguments=("bundle", "data", "word"))
    drift = sub.add_parser(
        "drift", help="recordings that change: when it is reported, how right decisions were till then"
    )
    drift.add_argument("--bundle", default="spoken-digits", metavar="NAME", help="default: spoken-digits")
    drift.add_argument(
        "--data", type=Path, metavar="FOLDER", help="the model's recordings (default: audio_fsdd, imu_uci_har)"
    )
    drift.set_defaults(arguments=("bundle", "data"))
    service = sub.add_parser("service", help="what the service costs: package, start, memory, CPU, wake-ups")
    service.add_argument("--seconds", type=positive, default=20.0, help="of an agent that waits (default: 20)")
    service.add_argument("--starts", type=whole(1, 1000), default=5, help="how many are timed (default: 5)")
    service.add_argument("--axond", type=Path, metavar="PROGRAM", help="to measure (default: that which runs this)")
    service.set_defaults(arguments=("seconds", "starts", "axond"))
    for bench in sub.choices.values():
        add_json(bench)


def _configure_rigs(sub: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    replug = sub.add_parser("replug", help="a sensor unplugged and plugged in again: each time it is back within 1 s")
    replug.add_argument("--cycles", type=whole(1, 1_000_000), default=1000, help="how often (default: 1000, 8 minutes)")
    replug.set_defaults(arguments=("cycles",))
    chaos = sub.add_parser("chaos", help="agent, broker and hub killed at random: nothing lost, nothing stored twice")
    chaos.add_argument("--kills", type=whole(0, 100_000), default=200, help="in all (default: 200)")
    chaos.add_argument("--seeds", type=whole(1, 1000), default=3, help="one installation for each (default: 3)")
    chaos.add_argument("--seconds", type=whole(0, 3600), default=10, help="of each other fault; 0: none (default: 10)")
    chaos.set_defaults(arguments=("kills", "seeds", "seconds"))
    uplink = sub.add_parser("uplink", help="results over a real broker, beside a publisher in C")
    uplink.add_argument("--seconds", type=positive, default=30.0, help="how long to measure (default: 30)")
    uplink.add_argument("--outage-s", type=whole(0, 3600), default=60, help="broker away; 0: never (default: 60)")
    uplink.add_argument(
        "--delay-ms", type=whole(0, 2000), default=0, help="of the agent's line, each way, in that part"
    )
    uplink.set_defaults(arguments=("seconds", "outage_s", "delay_ms"))
    interop = sub.add_parser("interop", help="agent and hub through brokers of several makers, each restarted once")
    interop.add_argument("--broker", action="append", choices=BROKERS, default=[], help="default: all; may be repeated")
    interop.set_defaults(arguments=("broker",))


def _run(options: argparse.Namespace) -> int:
    try:
        bench = import_module(f"hil.bench.{options.bench}")
    except ImportError as error:
        raise CommandError(
            f"this bench needs more packages: {how_to_install('onnx', 'tflite', 'build', 'locate')} ({error})"
        ) from error
    numbers = bench.measure(*(getattr(options, name) for name in options.arguments))
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
  axond bench store  results until they are durable in the outbox, in groups of 64 and in a flood, beside executemany of
                     bare SQLite with as many in a transaction; one alarm until it is durable; bytes that the disk is
                     given for each result
  axond bench teach  twelve words by espeak-ng and the ten sounds of ESC-10, each taught from five examples: the part
                     of 60 other voices, or 25 other clips, that is found, and the points of accuracy that the known
                     labels lose on recordings
  axond bench drift  recordings as a pipeline hears them, in rising noise and at other speeds (sound) or from a sensor
                     that sits turned (motion): when drift is reported, and the part of decisions right until then
  axond bench uplink acknowledged by a real broker: batches of 100 and single results, beside a publisher in C; stored
                     by a real hub; bytes on the wire; CPU and delay of a usual flow, beside a plain paho loop; what is
                     first after an outage, and how soon the rest follows (--delay-ms 300: over a satellite)
  axond bench service
                     size of the package and of what it installs; start until READY and first result; memory, CPU,
                     wake-ups and threads of an agent without sensors, connected to a broker, without and with a model
                     on ONNX Runtime; goals that were missed stand under ``missed``. --axond /usr/bin/axond measures the
                     installed package

Rigs, with exit code 1 and the reasons under ``faults`` when something went wrong:

  axond bench chaos  agent, broker (without persistence) and hub killed with SIGKILL at random moments; then the broker
                     away, the hub frozen, its database locked, the network cut and delayed. Proves from the hub's store
                     that everything committed is there, once; lists every event
  axond bench interop
                     the same proof through mosquitto (as it comes, and tuned), ejabberd, RabbitMQ and NATS, as far as
                     they are installed, with one restart of each
  axond bench quota  an outbox of 1 MiB that nobody empties, at 3000 results/s: overshoot at most 1 %, every row that
                     was given up is in a gap record at the hub, none of them younger than one that was kept
  axond bench memory a made day: 500 results/s and an outage every 20 s; slope of the memory with its uncertainty

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
  axond bench chaos --kills 200 --seeds 3 --json
""",
    _configure,
    _run,
)
