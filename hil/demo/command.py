"""``axond demo``: the main job on this machine, with real parts, live."""

import argparse
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import Popen
from threading import Event
from typing import Any

from rich.console import Console
from rich.live import Live

from agent.cli.command import Command, CommandError, add_json, console, positive, print_json
from agent.status import StatusUnavailable, ask
from drivers.extras import how_to_install
from hil.demo import sights, stage, stimuli
from hil.demo.plugs import Plugs
from hil.demo.report import Report, Watcher, print_summary
from hil.demo.score import Truth
from hil.demo.view import picture
from hil.emulators.edvs import EdvsEmulator
from hil.emulators.serial_pcm import SerialPcmEmulator
from hil.emulators.serial_port import SerialEmulator
from hil.emulators.witmotion import WitmotionEmulator
from models.bundle import MANIFEST
from models.registry import ZOO
from models.speech import SpeechUnavailable

STIMULUS_S = 240.0
"""Then it repeats."""
READY_TIMEOUT_S = 20.0
"""So long may an agent that is not ready do nothing."""
READY_LONGEST_S = 300.0
"""Whatever it does."""
VIEW_PERIOD_S = 0.5


@dataclass(frozen=True, slots=True)
class Show:
    """What is said, done and shown."""

    words: stimuli.Stimulus
    motion: stimuli.Stimulus
    sight: sights.Sight | None
    """None without a model that fuses it with the words."""

    def inputs(self) -> dict[str, str]:
        """Where they come from."""
        sight = {"sight": self.sight.source} if self.sight else {}
        return {"speech": self.words.source, "motion": self.motion.source, **sight}


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=positive, help="stop after this long (default: until Ctrl-C)")
    parser.add_argument("--seed", type=_seed, default=1, help="order of words and activities (default: 1)")
    parser.add_argument(
        "--unplug", action="store_true", help="pull the plugs of camera and microphone in turn: fused results go on"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep configuration, logs and databases here")
    add_json(parser)


def _seed(text: str) -> int:
    """An argparse type: what random generators begin from."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _run(options: argparse.Namespace) -> int:
    out = console(stderr=options.json)
    if options.keep:
        try:
            options.keep.mkdir(parents=True, exist_ok=True)
            used = any(options.keep.iterdir())
        except OSError as error:
            raise CommandError(f"--keep {options.keep}: {error.strerror}; name a new folder") from error
        if used:
            raise CommandError(f"--keep {options.keep}: not empty; name a new folder")
    with ExitStack() as stack, _interrupts() as interrupted:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="axond-demo-")))
        try:
            words = stimuli.digits(STIMULUS_S, options.seed)
        except SpeechUnavailable as error:
            raise CommandError(f"no recordings of spoken digits and no made ones either: {error}") from error
        motion = stimuli.body_motion(STIMULUS_S, options.seed)
        fused = (ZOO / stage.FUSED_MODEL / MANIFEST).is_file()
        if options.unplug and not fused:
            raise CommandError(f"--unplug: there is no model {stage.FUSED_MODEL}, so no pipeline that fuses sensors")
        show = Show(words, motion, sights.shown(words, options.seed) if fused else None)
        for name, source in show.inputs().items():
            out.print(f"{name:7s} {source}", markup=False)
        try:
            report = _play(stack, out, folder.resolve(), show, options, interrupted)
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
    show: Show,
    options: argparse.Namespace,
    interrupted: Event,
) -> Report:
    port: int | None = None
    hub_db = folder / "hub.db"
    if stage.find_mosquitto() and find_spec("sqlalchemy"):
        port = stack.enter_context(stage.broker(folder))
        hub = ["hub", "run", "--host", "127.0.0.1", "--port", str(port), "--db", str(hub_db)]
        stack.enter_context(stage.process("hub", stage.axond(*hub), folder))
        console.print(f"broker  mosquitto on 127.0.0.1:{port}, hub stores into SQLite")
    elif stage.find_mosquitto():
        console.print(f"hub     no SQLAlchemy here ({how_to_install('hub')}): results stay in the outbox")
    else:
        console.print("broker  no mosquitto here (apt install mosquitto): results stay in the outbox")
    sensors = _plug_in(stack, show, folder)
    ports = stage.Ports(folder / "mic", folder / "imu", folder / "camera" if show.sight else None)
    config = stage.write_config(folder, port, ports, show.motion.rate_hz)
    agent = stack.enter_context(stage.process("agent", stage.axond("run", "--config", str(config)), folder))
    state_dir = folder / "state"
    _wait_live(state_dir, folder, agent, interrupted)
    words = Truth(show.words, sensors["mic0"].measured_at_ns(0))
    truths = {"digits": words, "activity": Truth(show.motion, sensors["imu0"].measured_at_ns(0))}
    if show.sight:
        truths["fused"] = words
    watcher = Watcher(folder, hub_db if port else None, show.inputs(), truths)
    plugs = Plugs({name: sensors[name] for name in ("cam0", "mic0")} if options.unplug else {})
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
            plugs.step()
            watcher.update(_ask(state_dir))
            if console.is_terminal:
                live.update(picture(watcher, elapsed_s), refresh=True)
    watcher.update(_ask(state_dir))
    phases = plugs.finish()
    stop_s = stage.stop(agent)
    return watcher.report(time.monotonic() - start_s, stop_s, agent.returncode, phases)


def _plug_in(stack: ExitStack, show: Show, folder: Path) -> dict[str, SerialEmulator]:
    """The sensors, each on a pseudo-terminal of its own. The camera sees with the microphone's beginning."""
    for name in ("mic", "imu", "camera"):
        (folder / name).unlink(missing_ok=True)
    words, motion = show.words, show.motion
    imu = stack.enter_context(WitmotionEmulator(motion.data, motion.rate_hz, folder / "imu"))
    microphone = SerialPcmEmulator(words.data[:, 0], words.rate_hz, folder / "mic", baud=stage.MIC_BAUD)
    sensors: dict[str, SerialEmulator] = {"imu0": imu, "mic0": stack.enter_context(microphone)}
    if show.sight:
        seen = show.sight
        sensors["cam0"] = stack.enter_context(EdvsEmulator(seen.t_us, seen.x, seen.y, seen.on, folder / "camera"))
    return sensors


def _ask(state_dir: Path) -> dict[str, Any] | None:
    try:
        return ask(state_dir)
    except StatusUnavailable:
        return None


def _wait_live(state_dir: Path, folder: Path, agent: Popen[bytes], interrupted: Event) -> None:
    """Until every sensor and pipeline is live. Raises StageError.

    On a slow or busy processor that takes its time: only while the agent does nothing does ours run out.
    """
    begin_s = time.monotonic()
    while not interrupted.wait(0.05):
        facts = _ask(state_dir)
        if facts and all(part["state"] == "live" for kind in ("sensors", "pipelines") for part in facts[kind].values()):
            return
        passed_s = time.monotonic() - begin_s
        gone = agent.poll() is not None
        if gone or passed_s > READY_LONGEST_S or passed_s - stage.occupied_s(agent) > READY_TIMEOUT_S:
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
With the model fused-digits an event camera is shown what is said, and a pipeline decides from both.
The sensors are emulators on pseudo-terminals: a WitMotion IMU, a microphone on a microcontroller, an eDVS camera.
Ctrl-C ends it with a summary.

  axond demo
  axond demo --unplug
  axond demo --seconds 60 --json
""",
    _configure,
    _run,
)
