"""Settings of the interpreter, and of cores and priorities of threads, that keep latencies short."""

import gc
import logging
import os
import sys
from collections.abc import Set
from threading import Lock

from agent.profile import Profile
from agent.worker import Worker

SWITCH_INTERVAL_S = 0.0005
FEWEST_CORES = 4
"""With fewer, cores that only some may use are idle too often."""
CAPTURE_RR = 10
"""Below the 50 of the kernel's own interrupt threads: what delivers the bytes comes first."""
CAPTURE_NICE = -10
PIPELINE_NICE = -5

_log = logging.getLogger(__name__)


def settle() -> None:
    """Call at the end of start-up: what lives now lives for ever, so the collector need not look at it again."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.enable()  # ``axond run`` turns it off for the time of the imports


class Scheduling:
    """Gives threads the cores and priorities of a profile, as far as the system allows; else they keep what they have.

    ``place`` is called in each worker's thread. Threads and processes that it makes inherit its cores and niceness,
    but no real-time priority.
    """

    def __init__(self, profile: Profile, allowed: Set[int] | None = None) -> None:
        """``allowed``: cores of this process; None: as the system says, so what systemd or taskset chose holds."""
        cores = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
        first = len(cores) // 4
        pins = profile.pins and len(cores) >= FEWEST_CORES
        self.data_cores = frozenset(cores[first:]) if pins else frozenset()
        """Of captures and pipelines; empty: all are everybody's."""
        self.other_cores = frozenset(cores[:first]) if pins else frozenset()
        self._urgent = profile.urgent
        self._lock = Lock()
        self._reached: dict[str, str] = {}

    def facts(self) -> dict[str, object]:
        """For status: cores, and what priority the kinds of threads really have."""
        with self._lock:
            reached = dict(self._reached)
        return {
            "data_cores": sorted(self.data_cores),
            "other_cores": sorted(self.other_cores),
            "priorities": reached,
        }

    def place(self, worker: Worker) -> None:
        """Puts the calling thread, which is to run ``worker``, where it belongs."""
        kind = worker.name.partition(":")[0]
        is_data = kind in ("capture", "pipeline")
        cores = self.data_cores if is_data else self.other_cores
        if cores:
            _pin(cores)
        if not (self._urgent and is_data):
            return
        reached = _hurry(CAPTURE_RR, CAPTURE_NICE) if kind == "capture" else _hurry(None, PIPELINE_NICE)
        with self._lock:
            told = self._reached.get(kind)
            self._reached[kind] = reached
        if told is None:
            _log.info("threads of %ss run with %s", kind, reached)


def _pin(cores: Set[int]) -> None:
    try:
        os.sched_setaffinity(0, cores)  # 0: the calling thread
    except OSError as error:  # a cpuset became narrower
        _log.debug("cores %s cannot be taken: %s", sorted(cores), error.strerror)


def _hurry(round_robin: int | None, nice: int) -> str:
    """Raises the priority of the calling thread; what it has then."""
    if round_robin is not None:
        try:
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(round_robin))
            return f"SCHED_RR {round_robin}"
        except OSError:  # no LimitRTPRIO, no CAP_SYS_NICE, or a container that forbids it
            pass
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)  # on Linux of this thread alone
        return f"nice {nice}"
    except OSError:
        return "the usual priority (the system allows no other)"
