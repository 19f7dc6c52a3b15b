"""A child process: answers, fails in every way within its deadline, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from models.base import BackendUnavailable, BadModel
from models.child import Child

START_S = 20.0
ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, signal, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from models.child_serve import serve

def setup(shared):
    if sys.argv[2] == "bad":
        def refuse(request):
            return {}
        raise RuntimeError("no chip here")
    def handle(request):
        what = request["what"]
        if what == "add":
            shared[1] = shared[0] + 1
            return {"pid": os.getpid()}
        if what == "spawn":
            return {"pid": subprocess.Popen(["sleep", "1000"]).pid}
        if what == "error":
            return {"error": "the chip is asleep"}
        if what == "bad_model":
            return {"bad_model": "too many neurons"}
        if what == "raise":
            raise ValueError("seven is no number")
        if what == "exit":
            sys.stderr.write("good bye\\n")
            os._exit(3)
        if what == "abort":
            os.abort()
        if what == "hold":  # one native call that keeps the GIL
            return {"sum": sum(range(10**13))}
        if what == "fill":
            kept = []
            while True:
                kept.append(bytes(1 << 28))
        if what == "talk":
            print("x" * (1 << 20), flush=True)
            return {}
        if what == "noise":
            os.write(int(sys.argv[-3]), b"no json\\n")
            time.sleep(1000)
        return {"limits": open("/proc/self/oom_score_adj").read().strip()}
    return handle

serve(setup)
"""


def made(mode: str = "good") -> Child:
    return Child([sys.executable, "-c", PROGRAM, str(ROOT), mode], 4096, "testing")


@pytest.fixture
def child() -> Iterator[Child]:
    one = made()
    one.start(START_S)
    yield one
    one.close()


def gone(pid: int) -> bool:
    """True for a zombie as well: whether somebody reaps an orphan is not ours."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.005)


@contextmanager
def fails_within(seconds: float, match: str) -> Iterator[None]:
    begun_s = time.monotonic()
    with pytest.raises(BackendUnavailable, match=match):
        yield
    assert time.monotonic() - begun_s < seconds + 0.5


def test_memory_is_shared_and_calls_are_answered(child: Child) -> None:
    child.buffer[0] = 41
    assert child.call({"what": "add"}, 5)["pid"] == child.pid
    assert child.buffer[1] == 42


def test_its_own_refusals_leave_it_alive(child: Child) -> None:
    with pytest.raises(BackendUnavailable, match=r"^the chip is asleep$"):
        child.call({"what": "error"}, 5)
    with pytest.raises(BadModel, match=r"^too many neurons$"):
        child.call({"what": "bad_model"}, 5)
    assert child.call({"what": "add"}, 5)


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("raise", "of testing ended with exit code 1: ValueError: seven is no number"),
        ("exit", "of testing ended with exit code 3: good bye"),
        ("abort", "of testing was ended by SIGABRT"),
        ("fill", "of testing ended with exit code 1: MemoryError"),
        ("hold", r"of testing gave no answer within 0.30 s"),
        ("noise", "of testing answers what is not JSON"),
    ],
)
def test_a_failure_is_one_sentence_within_the_deadline(child: Child, what: str, match: str) -> None:
    pid = child.pid
    assert pid is not None
    deadline_s = 0.3 if what == "hold" else 10.0
    with fails_within(deadline_s, match):
        child.call({"what": what}, deadline_s)
    wait_for(lambda: gone(pid))
    with pytest.raises(BackendUnavailable):
        child.call({"what": "add"}, 1)
    child.start(START_S)
    assert child.call({"what": "add"}, 5)["pid"] != pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
def test_signals_from_outside(child: Child, number: signal.Signals) -> None:
    pid = child.pid
    assert pid is not None
    os.kill(pid, number)
    with fails_within(0.3, "gave no answer" if number == signal.SIGSTOP else f"was ended by {number.name}"):
        child.call({"what": "add"}, 0.3)
    wait_for(lambda: gone(pid))


def test_a_start_that_fails_says_why() -> None:
    bad = made("bad")
    with fails_within(START_S, "of testing ended with exit code 1: RuntimeError: no chip here"):
        bad.start(START_S)
    bad.close()
    missing = Child(["/nowhere/python"], 10, "testing")
    with pytest.raises(BackendUnavailable, match=r"cannot be started .No such file or directory: /nowhere/python"):
        missing.start(START_S)
    missing.close()


def test_much_output_never_blocks_it(child: Child) -> None:
    for _ in range(3):
        child.call({"what": "talk"}, 10)


def test_the_kernel_would_take_it_first(child: Child) -> None:
    assert child.call({"what": "limits"}, 5) == {"limits": "1000"}


def test_nothing_is_left(child: Child) -> None:
    child.close()
    before = sorted(Path("/proc/self/fd").iterdir())
    segments = sorted(Path("/dev/shm").iterdir())
    for how in ("close", "exit", "hold"):
        child.start(START_S)
        ours = [child.pid or 0, child.call({"what": "spawn"}, 5)["pid"]]
        if how != "close":
            with pytest.raises(BackendUnavailable):
                child.call({"what": how}, 0.3)
        child.close()
        child.close()
        wait_for(lambda pids=ours: all(map(gone, pids)))  # type: ignore[misc]
        assert not psutil.pid_exists(ours[0])
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert sorted(Path("/dev/shm").iterdir()) == segments


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from models.child import Child
child = Child([sys.executable, "-c", sys.argv[2], sys.argv[1], "good"], 4096)
child.start(20)
print(child.pid, child.call({"what": "spawn"}, 5)["pid"], flush=True)
child.call({"what": "hold"}, 1000)
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_kill_nine_of_the_parent_takes_all(stopped: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ROOT), PROGRAM], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert not any(map(gone, pids))
        if stopped:
            os.kill(pids[0], signal.SIGSTOP)
            wait_for(lambda: psutil.Process(pids[0]).status() == psutil.STATUS_STOPPED)
        parent.kill()
        wait_for(lambda: all(map(gone, pids)), 2)
