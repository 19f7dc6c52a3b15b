"""``axond demo``: the main job on this machine, with real parts, live."""

import argparse
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from threading import Event
from typing import Any

from rich.console import Console
from rich.live import Live

from agent.cli.command import Command, CommandError, add_json, console, positive, print_json
from agent.status import StatusUnavailable, ask
from hil.demo import stage, stimuli
from hil.demo.report import Report, Watcher, print_summary
from hil.demo.view import picture
from hil.emulators.witmotion import WitmotionEmulator
from models.speech import SpeechUnavailable

STIMULUS_S = 240.0
"""Then it repeats."""
READY_TIMEOUT_S = 20.0
VIEW_PERIOD_S = 0.5


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=positive, help="stop after this long (default: until Ctrl-C)")
    parser.add_argument("--seed", type=int, default=1, help="order of words and activities (default: 1)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep configuration, logs and databases here")
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    out = console(stderr=options.json)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        if any(options.keep.iterdir()):
            raise CommandError(f"--keep {options.keep}: not empty; name a new folder")
    with ExitStack() as stack, _interrupts() as interrupted:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="axond-demo-")))
        try:
            words = stimuli.digits(STIMULUS_S, options.seed)
        except SpeechUnavailable as error:
            raise CommandError(f"no recordings of spoken digits and no made ones either: {error}") from error
        motion = stimuli.body_motion(STIMULUS_S, options.seed)
        out.print(f"speech  {words.source}\nmotion  {motion.source}", markup=False)
        try:
            report = _play(stack, out, folder.resolve(), words, motion, options, interrupted)
        except stage.StageError as error:
            raise CommandError(str(error)) from error
    if options.json:
        print_json(report.document())
    else:
        print_summary(out, report)
    return 0 if report.good() else 1


@contextmanager
def _interrupts() -> Iterator[Event]:
    """Ctrl-C, SIGTERM and a closed terminal end the show, not the program: all is stopped in order and summed up."""
    interrupted = Event()
    old = {n: signal.signal(n, lambda *_: interrupted.set()) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield interrupted
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _play(
    stack: ExitStack,
    console: Console,
    folder: Path,
    words: stimuli.Stimulus,
    motion: stimuli.Stimulus,
    options: argparse.Namespace,
    interrupted: Event,
) -> Report:
    wav, imu = folder / "digits.wav", folder / "imu"
    stimuli.write_wav(words, wav)
    port: int | None = None
    hub_db = folder / "hub.db"
    if stage.find_mosquitto():
        port = stack.enter_context(stage.broker(folder))
        hub = ["hub", "run", "--host", "127.0.0.1", "--port", str(port), "--db", str(hub_db)]
        stack.enter_context(stage.process("hub", stage.axond(*hub), folder))
        console.print(f"broker  mosquitto on 127.0.0.1:{port}, hub stores into SQLite")
    else:
        console.print("broker  no mosquitto here (apt install mosquitto): results stay in the outbox")
    imu.unlink(missing_ok=True)
    sensor = stack.enter_context(WitmotionEmulator(motion.data, motion.rate_hz, imu))
    config = stage.write_config(folder, port, wav, imu, motion.rate_hz)
    agent = stack.enter_context(stage.process("agent", stage.axond("run", "--config", str(config)), folder))
    state_dir = folder / "state"
    _wait_live(state_dir, folder, agent, interrupted)
    watcher = Watcher(folder, hub_db if port else None, words, motion, sensor.measured_at_ns(0))
    start_s = time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not interrupted.wait(VIEW_PERIOD_S):
            if agent.poll() is not None:
                raise stage.StageError(
                    f"the agent ended with exit code {agent.returncode}; see {_log_tail(folder, 'agent')}"
                )
            elapsed_s = time.monotonic() - start_s
            if options.seconds and elapsed_s >= options.seconds:
                break
            watcher.update(_ask(state_dir))
            if console.is_terminal:
                live.update(picture(watcher, elapsed_s), refresh=True)
    watcher.update(_ask(state_dir))
    stop_s = stage.stop(agent)
    return watcher.report(time.monotonic() - start_s, stop_s, agent.returncode)


def _ask(state_dir: Path) -> dict[str, Any] | None:
    try:
        return ask(state_dir)
    except StatusUnavailable:
        return None


def _wait_live(state_dir: Path, folder: Path, agent: Popen[bytes], interrupted: Event) -> None:
    """Until every sensor and pipeline is live. Raises StageError."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not interrupted.wait(0.05):
        facts = _ask(state_dir)
        if facts and all(part["state"] == "live" for kind in ("sensors", "pipelines") for part in facts[kind].values()):
            return
        if agent.poll() is not None or time.monotonic() > deadline_s:
            raise stage.StageError(f"the agent did not become ready: {_log_tail(folder, 'agent')}")


def _log_tail(folder: Path, name: str) -> str:
    lines = (folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"{folder / name}.log is empty"


COMMAND = Command(
    "demo",
    "the whole chain on this machine, live",
    """Show the main job: speech and body motion through the real drivers into two spiking networks, results into the
outbox, over a real MQTT broker (mosquitto, if it is installed) into a hub. Recordings are used where the machine has
them (AXOND_DATA, or ../shared/data); else speech is made by espeak-ng and motion by a kinematic model.
The IMU is an emulator that speaks the WitMotion protocol on a pseudo-terminal. Ctrl-C ends it with a summary.

  axond demo
  axond demo --seconds 60 --json
""",
    _configure,
    _run,
)
