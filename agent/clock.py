"""Keeps what is known of the wall clock: for time stamps made before it was set, and for the next start.

A device without a battery behind its clock starts in 1970. Nothing waits for the right time: results are numbered and
stored at once, and what is learnt of the clock later corrects the stamps of each epoch (``agent.clock_epochs``). The
last known time is kept on disk, as the least that the time can be after the next start.
"""

import json
import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Literal

from agent import kernel_clock
from agent.clock_epochs import (
    MAX_EPOCHS,
    Epoch,
    Fix,
    Knowledge,
    fixes_document,
    is_time,
    knowledge,
    parse_fixes,
    to_document,
)
from agent.clock_leap import Leaps
from agent.topics import is_name
from agent.wire import SystemClock, WireError, iso_time, wall_us

FILE = "clock.json"
LOOK_S = 1.0
SAVE_S = 300.0
"""How often the file is written, beside the first time that the clock is known, and the stop."""
BUILT_US = 1_735_689_600_000_000
"""2025-01-01: a clock that says less was never set."""
MAX_FILE_BYTES = 1 << 20
_SLACK_US = 1_000_000
_NOT_YET_VALID = 9
_EXPIRED = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClockState:
    """A snapshot for displays. Times are Unix microseconds."""

    source: Literal["synchronised", "unsynchronised", "wrong"] = "unsynchronised"
    """The kernel vouches for the clock; it does not; or the clock says a time that cannot be."""
    uncertainty_ms: float | None = None
    """How wrong it is at most; None while nobody knows."""
    wall_us: int = 0
    """What the clock says."""
    last_known_us: int | None = None
    """When it was last known, in this run or an earlier one."""
    at_least_us: int | None = None
    """The time now is not before that, whatever the clock says; None while it is known, or if it never was."""
    steps: int = 0
    """How often it leapt since the start."""
    last_step_ms: float = 0.0
    """By how much it leapt last; above 0 is forwards."""
    may_ask: bool = True
    """False: the sandbox forbids to ask the kernel, so the clock never counts as known."""

    @property
    def known(self) -> bool:
        return self.source == "synchronised"

    def facts(self) -> dict[str, Any]:
        """For ``axond status --json``; ``last_known`` and ``at_least`` for people."""
        times = {"last_known": self.last_known_us, "at_least": self.at_least_us}
        return {**asdict(self), **{name: at_us and iso_time(at_us) for name, at_us in times.items()}}

    @property
    def trouble(self) -> str | None:
        """One sentence while the clock is certainly wrong, else None."""
        if self.source != "wrong":
            return None
        fault = "is not set" if self.wall_us < BUILT_US else "was set back"
        least = f", and it is {iso_time(self.at_least_us)[:19]}Z or later" if self.at_least_us else ""
        said = iso_time(self.wall_us)[:19]
        return f"the clock {fault}: it says {said}Z{least}; results are stamped anew once it is known"


class DeviceClock(SystemClock):
    """The clocks of this device. Of a wall clock that is not set it tells the least that it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.least_us: int | None = None
        """The least that the offset can be in this epoch."""

    def offset_us(self) -> int:
        offset_us = self.said_us()
        if self.least_us is None or offset_us >= self.least_us or self.uncertainty_ms() is not None:
            return offset_us
        return self.least_us

    def said_us(self) -> int:
        """The offset that the wall clock says, even if it cannot be."""
        return super().offset_us()

    def slept_us(self) -> int:
        """How long the machine has slept, which CLOCK_MONOTONIC leaves out."""
        return kernel_clock.slept_us()


@dataclass(slots=True)
class _Memory:
    """What the file holds."""

    floor_us: int | None = None
    """Unix time that lies before the oldest epoch."""
    epochs: list[Epoch] = field(default_factory=list)
    """Oldest first."""


class ClockKeeper:
    """A ``Worker``. ``state`` and ``report`` may be called from any thread."""

    name = "clock"
    critical = False

    def __init__(self, state_dir: Path, clock: DeviceClock) -> None:
        self._path = state_dir / FILE
        self._clock = clock
        self._leaps = Leaps()
        self._memory = _Memory()
        self._present = ""
        self._fixes = 0
        """In a row, without a moment at which the clock was not known."""
        self._ever_known = False
        self._may_ask = True
        self._state = ClockState()
        self._report: tuple[int, dict[str, Any]] = (0, {"epochs": {}})
        self._save_due_ns = 0
        self._failed = False

    def state(self) -> ClockState:
        return self._state

    def report(self) -> tuple[int, dict[str, Any]]:
        """What the hub should know, for ``up/clock``, and a number that changes when it should know it at once."""
        return self._report

    def load(self) -> None:
        """Before the first result: reads what earlier runs knew. Never raises."""
        self._memory = self._read()
        self._may_ask = kernel_clock.may_be_asked()
        if not self._may_ask:
            _log.warning("the kernel may not be asked how sure it is of the clock (adjtimex is forbidden here)")
        self._save_due_ns = self._clock.monotonic_ns() + round(SAVE_S * 1e9)
        self.look()
        if self._state.trouble:
            _log.warning("%s", self._state.trouble)

    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        """Looks at the clock until ``stop``, then writes down what it knows."""
        try:
            while not stop.is_set():
                beat()
                self.look()
                stop.wait(LOOK_S)
        finally:
            self._save()

    def look(self) -> None:
        """Looks at the clock once."""
        clock, now_ns, slept_us = self._clock, self._clock.monotonic_ns(), self._clock.slept_us()
        said_us, uncertainty_ms = clock.said_us(), clock.uncertainty_ms()
        known = uncertainty_ms is not None
        epoch, fresh = self._epoch(slept_us)
        epoch.end_us = now_ns // 1000
        leap_us = self._leaps.look(now_ns, said_us - slept_us)
        changed = fresh or bool(leap_us) or known != (self._fixes > 0)
        if changed or not known:
            self._fixes = 0
        if uncertainty_ms is not None:
            # Of each stretch in which the clock was known the first fix stays, and the last one moves.
            epoch.add(Fix(epoch.end_us, said_us, uncertainty_ms), replaces=self._fixes >= 2)
            self._fixes += 1
        self._set_state(epoch, said_us, uncertainty_ms)
        self._tell(leap_us, changed)
        due = now_ns >= self._save_due_ns
        if changed or due:
            self._publish(1 if changed else 0)
        if due or (known and not self._ever_known):
            self._save()
        self._ever_known = self._ever_known or known

    def _epoch(self, slept_us: int) -> tuple[Epoch, bool]:
        """The present epoch; whether it has just begun, or this run in it."""
        memory, name = self._memory, self._clock.epoch()
        if name == self._present and memory.epochs:
            return memory.epochs[-1], False
        known_before = [one for one in memory.epochs if one.id == name]
        memory.epochs = [one for one in memory.epochs if one.id != name]
        memory.epochs.append(known_before[-1] if known_before else Epoch(name, name.partition("-")[0], slept_us))
        self._present = name
        while len(memory.epochs) > MAX_EPOCHS:
            gone = memory.epochs.pop(0)
            last = gone.fixes[-1] if gone.fixes else None
            if last is not None:
                asleep = memory.epochs[0].kernel == gone.kernel
                memory.floor_us = last.offset_us + (0 if asleep else last.mono_us)
        known = knowledge(memory.epochs, memory.floor_us).get(name)
        self._clock.least_us = known.least_us if known else None
        return memory.epochs[-1], True

    def _set_state(self, epoch: Epoch, said_us: int, uncertainty_ms: float | None) -> None:
        last = next((one.fixes[-1] for one in reversed(self._memory.epochs) if one.fixes), None)
        last_known_us = self._memory.floor_us if last is None else last.mono_us + last.offset_us
        least_us = self._clock.least_us
        if epoch.fixes:
            fix = epoch.fixes[-1]
            least_us = fix.offset_us - round(fix.uncertainty_at_ms(epoch.end_us) * 1000)
        at_least_us = None if least_us is None or uncertainty_ms is not None else least_us + epoch.end_us
        says_us = said_us + epoch.end_us
        wrong = says_us < max(BUILT_US, (at_least_us or 0) - _SLACK_US)
        self._state = ClockState(
            "synchronised" if uncertainty_ms is not None else "wrong" if wrong else "unsynchronised",
            uncertainty_ms,
            says_us,
            last_known_us,
            at_least_us,
            self._leaps.count,
            self._leaps.last_us / 1000,
            self._may_ask,
        )

    def _tell(self, leap_us: int, changed: bool) -> None:
        state = self._state
        now = iso_time(state.wall_us)[:19]
        if leap_us:
            _log.warning("the clock leapt by %+.3f s and says %sZ now", leap_us / 1e6, now)
        if changed and state.uncertainty_ms is not None:
            _log.info("the clock is known: %sZ, give or take %.1f ms", now, state.uncertainty_ms)

    def _publish(self, news: int) -> None:
        table = knowledge(self._memory.epochs, self._memory.floor_us)
        epochs = {name: to_document(known) for name, known in table.items() if is_name(name)}
        self._report = self._report[0] + news, {"epochs": epochs}

    def _read(self) -> _Memory:
        try:
            with self._path.open("rb") as file:
                return _parse(file.read(MAX_FILE_BYTES))
        except FileNotFoundError:
            return _Memory()
        except (OSError, ValueError) as error:
            _log.warning("%s cannot be read (%s); what earlier runs knew of the clock is lost", self._path, error)
            return _Memory()

    def _save(self) -> None:
        self._save_due_ns = self._clock.monotonic_ns() + round(SAVE_S * 1e9)
        fresh = self._path.with_suffix(".new")
        try:
            with fresh.open("w", encoding="ascii") as file:
                file.write(_text(self._memory))
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(self._path)
        except OSError as error:
            if not self._failed:
                _log.warning("%s cannot be written (%s); the next start knows less of the time", self._path, error)
            self._failed = True
        else:
            self._failed = False


def read_table(state_dir: Path) -> dict[str, Knowledge]:
    """What the agent of this folder last wrote down, for tools that look at its results. Empty if there is nothing."""
    try:
        memory = _parse((state_dir / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return knowledge(memory.epochs, memory.floor_us)


def untimely(error: ssl.SSLCertVerificationError) -> str | None:
    """What to say of a certificate that is not valid at the time that the clock says; None: it is something else."""
    if error.verify_code not in (_NOT_YET_VALID, _EXPIRED):
        return None
    said = iso_time(wall_us())[:19]
    wrong = "is not valid yet" if error.verify_code == _NOT_YET_VALID else "has expired"
    if kernel_clock.uncertainty_ms() is not None:
        return f"{wrong}: the clock says {said}Z and is synchronised"
    remedy = "it is trusted once the clock is set, so see that NTP is reached"
    return f"{wrong} by the clock of this device, which is not synchronised and says {said}Z; {remedy}"


def _text(memory: _Memory) -> str:
    epochs = [
        {
            "id": one.id,
            "kernel": one.kernel,
            "slept_us": one.slept_us,
            "end_us": one.end_us,
            "fixes": fixes_document(one.fixes),
        }
        for one in memory.epochs
    ]
    return json.dumps({"v": 1, "floor_us": memory.floor_us, "epochs": epochs}, separators=(",", ":")) + "\n"


def _parse(data: bytes) -> _Memory:
    """``ValueError`` for anything that ``_text`` has not made."""
    try:
        document = json.loads(data)
        floor_us = document["floor_us"]
        epochs = [
            Epoch(str(one["id"]), str(one["kernel"]), one["slept_us"], one["end_us"], parse_fixes(one["fixes"]))
            for one in document["epochs"]
        ]
    except (KeyError, TypeError, RecursionError, WireError) as error:
        raise ValueError(f"it is not what axond writes: {error!r}") from error
    times = [0 if floor_us is None else floor_us, *(us for one in epochs for us in (one.slept_us, one.end_us))]
    if not all(map(is_time, times)):
        raise ValueError("a time in it is no whole number of 53 bits")
    return _Memory(floor_us, epochs[-MAX_EPOCHS:])
