"""What the kernel says of its clocks: how sure it is of the wall clock, when it started, how long it slept."""

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_STA_UNSYNC = 0x40
TIMESYNCD_FILE: Final = Path("/run/systemd/timesync/synchronized")
MAX_DRIFT = 500e-6
MAX_ERROR_MS = 16_000.0
"""MAXFREQ and NTP_PHASE_LIMIT of the kernel's timex.h."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_ID_CHARACTERS = 8
_SEEN_S = 2.0
"""A leap is seen within that time: timesyncd, which has made it, may have touched its file before."""
_READINGS = 5
_CLOSE_NS = 20_000


class _Timex(ctypes.Structure):
    """The head of Linux' ``struct timex``; the tail is room for fields that we do not read."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def uncertainty_ms(set_at_s: float = 0.0) -> float | None:
    """How wrong the wall clock is at most; None while nobody keeps it right, or nobody may be asked.

    ``set_at_s``: Unix time at which the clock was seen to leap last; the kernel knows that by itself.
    """
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    state = _Timex()
    if adjtimex is None or adjtimex(ctypes.byref(state)) < 0:
        return timesyncd_ms(set_at_s=set_at_s)
    if state.status & _STA_UNSYNC:
        return None
    return round(int(state.maxerror) / 1000, 1)


def timesyncd_ms(file: Path = TIMESYNCD_FILE, *, set_at_s: float = 0.0) -> float | None:
    """What the kernel would say where systemd-timesyncd keeps the time; None if it does not, or no longer does.

    It touches its file whenever it has set the clock right; from then on the kernel counts MAX_DRIFT for every second,
    and beyond MAX_ERROR_MS it takes nobody to be keeping it.
    """
    try:
        touched_s = file.stat().st_mtime
    except OSError:
        return None
    if touched_s < set_at_s - _SEEN_S:  # somebody else has set the clock since
        return None
    error_ms = (time.clock_gettime(time.CLOCK_REALTIME) - touched_s) * MAX_DRIFT * 1000
    return round(error_ms, 1) if 0 <= error_ms <= MAX_ERROR_MS else None


def may_be_asked() -> bool:
    """Whether the kernel tells how sure it is, or a file where a sandbox forbids to ask; else nobody ever knows."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    return (adjtimex is not None and adjtimex(ctypes.byref(_Timex())) >= 0) or TIMESYNCD_FILE.parent.exists()


def kernel_id() -> str:
    """Names this start of the kernel; empty where nobody tells."""
    try:
        return _BOOT_ID.read_text("ascii").replace("-", "")[:_ID_CHARACTERS]
    except (OSError, UnicodeDecodeError):
        return ""


def epoch_name(kernel: str, slept_us: int) -> str:
    """Names a stretch of time in which CLOCK_MONOTONIC has one origin: a sleep begins another one."""
    slept_s = (slept_us + 500_000) // 1_000_000
    return f"{kernel}-{slept_s}" if slept_s and kernel else kernel


def slept_us() -> int:
    """How long the machine has slept since the kernel started: CLOCK_MONOTONIC stands still meanwhile."""
    return offset_ns(_boot_ns) // 1000


def _boot_ns() -> int:
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def offset_ns(read_ns: Callable[[], int]) -> int:
    """Another clock minus CLOCK_MONOTONIC. Read anew where something came between the readings."""
    best_ns, found_ns = sys.maxsize, 0
    for _ in range(_READINGS):
        before_ns = time.monotonic_ns()
        other_ns = read_ns()
        after_ns = time.monotonic_ns()
        if after_ns - before_ns < best_ns:
            best_ns, found_ns = after_ns - before_ns, other_ns - (before_ns + after_ns) // 2
        if best_ns < _CLOSE_NS:
            break
    return found_ns
