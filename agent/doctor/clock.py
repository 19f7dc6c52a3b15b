"""Does this machine know what time it is?"""

from collections.abc import Iterator
from pathlib import Path

from agent import kernel_clock
from agent.clock import BUILT_US, read_table
from agent.doctor.finding import Finding, Word
from agent.doctor.scene import Scene, first_line
from agent.wire import iso_time, wall_us

SLACK_US = 1_000_000


def look(scene: Scene) -> Iterator[Finding]:
    """The kernel's clock, what the agent remembers, and the clock that runs on while the power is off."""
    yield from judged(scene, wall_us(), kernel_clock.uncertainty_ms(), last_known_us(scene.state_dir))
    yield from _agent(scene)


def last_known_us(state_dir: Path) -> int | None:
    """When the agent of this folder last knew the time, as Unix time."""
    fixes = (fix for known in read_table(state_dir).values() for fix in known.fixes)
    return max((fix.mono_us + fix.offset_us for fix in fixes), default=None)


def judged(scene: Scene, now_us: int, uncertainty_ms: float | None, known_us: int | None = None) -> Iterator[Finding]:
    """``uncertainty_ms``: of the kernel; None while nothing keeps the clock right. ``known_us``: it was later once."""
    facts: dict[str, object] = {"now": Word(iso_time(now_us)[:19] + "Z")}
    tls = scene.settings.uplink is not None and scene.settings.uplink.ca_file is not None
    clocks = sorted((scene.root / "sys/class/rtc").glob("rtc*"))
    if now_us < BUILT_US:
        yield Finding(
            "clock.never_set",
            "problem" if tls else "warning",
            "this machine believes that it is {now}; results are stamped right once it knows better, but with TLS no "
            "certificate is valid yet",
            "clock",
            "let it ask the network, or set it by hand",
            ("sudo timedatectl set-ntp true", "timedatectl timesync-status"),
            facts,
        )
    elif known_us is not None and now_us < known_us - SLACK_US:
        yield Finding(
            "clock.went_back",
            "warning",
            "the clock says {now}, but axond knows that it was {known} already",
            "clock",
            "let it ask the network, or set it by hand; see whether the battery of the clock is empty",
            ("sudo timedatectl set-ntp true", "timedatectl timesync-status"),
            {**facts, "known": Word(iso_time(known_us)[:19] + "Z")},
        )
    if uncertainty_ms is None:
        yield Finding(
            "clock.not_synchronised",
            "warning",
            "nothing keeps the clock right ({now}): results carry an unknown error of their time",
            "clock",
            "switch a time service on, and let UDP port 123 through the firewall",
            ("sudo timedatectl set-ntp true", "timedatectl timesync-status"),
            facts,
        )
    else:
        yield Finding(
            "clock.synchronised", "ok", "{now}, at most {error_ms:g} ms off", "clock",
            facts={**facts, "error_ms": uncertainty_ms},
        )  # fmt: skip
    if not clocks:
        yield Finding(
            "clock.no_rtc",
            "note",
            "no clock runs while the power is off: after a start the time is unknown until the network tells it",
            str(scene.root / "sys/class/rtc"),
            "axond works without; a clock module (DS3231) or the Pi 5's battery gives it the time at once",
        )
    elif not any(first_line(clock / "since_epoch") or first_line(clock / "date") for clock in clocks):
        yield Finding(
            "clock.rtc_dead",
            "warning",
            "{clock} is there but tells no time",
            str(clocks[0]),
            "change its battery, then write the right time to it",
            ("sudo hwclock --systohc",),
            {"clock": clocks[0].name},
        )


def _agent(scene: Scene) -> Iterator[Finding]:
    state = (scene.status or {}).get("clock") or {}
    if state.get("may_ask") is False:
        yield Finding(
            "clock.forbidden",
            "warning",
            "the sandbox of the service keeps the agent from asking the kernel about the clock, and systemd-timesyncd, "
            "which it goes by instead, is not here: it takes the time for unknown",
            "clock",
            "install that, or let the unit call adjtimex (ProtectClock=no, SystemCallFilter=adjtimex)",
            ("sudo apt install systemd-timesyncd", "systemctl cat axond.service"),
        )
    if state.get("steps"):
        yield Finding(
            "clock.leapt",
            "note",
            "the clock leapt {steps} times since the agent started, last by {ms:+g} ms; results are stamped anew",
            "clock",
            facts={"steps": state["steps"], "ms": state["last_step_ms"]},
        )
