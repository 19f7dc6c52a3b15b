"""MemoryMax on an emulated PC, whose kernel enforces it: the agent is killed, comes back, and has all that it had.

``make service`` runs it; it takes minutes, as an emulated PC is slow.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.guest.machine import Machine
from tests.end_to_end.rig import wait_for
from tests.end_to_end.test_service_devices import disk, said

BOOT_S, END_S = 900.0, 900.0

pytestmark = pytest.mark.skipif(os.environ.get("AXOND_SERVICE") != "full", reason="takes minutes: make service")

CONFIG = """
[device]
id = "guest"
[sensors.imu0]
driver = "synthetic"
rate_hz = 50
[pipelines.motion]
sensors = ["imu0"]
model = "activity"
report = "every"
"""
ACT = """
def show(name):
    return subprocess.run(["systemctl", "show", "axond", "-p", name, "--value"], capture_output=True, text=True).stdout
def limit(most):
    subprocess.run(["systemctl", "set-property", "--runtime", "axond.service", "MemoryMax=" + most], check=True)
def ledger():
    told = subprocess.run(["axond", "outbox", "stats", "--json"], capture_output=True, text=True, check=True).stdout
    return json.loads(told)["ledger"]
while (now := status()) is None or now["outbox"]["rows"] < 3:
    time.sleep(1)
say(running=now["boot"], most=int(show("MemoryMax")), machine=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
say(before=ledger(), used=(used := int(show("MemoryCurrent"))))
limit(str(used // 4))
while not int(show("NRestarts")):
    time.sleep(0.1)
limit("50%")
while (now := status()) is None or not now["pipelines"]["motion"]["reported"]:
    time.sleep(1)
log = subprocess.run(["journalctl", "-u", "axond", "-o", "cat"], capture_output=True, text=True).stdout
say(log=[line for line in log.splitlines() if "oom" in line.lower()])
say(restarts=int(show("NRestarts")), again=now["boot"])
say(after=ledger(), state=show("ActiveState").strip())
"""


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path, CONFIG, ACT) as made:
        yield made


def test_an_agent_that_takes_too_much_is_killed_and_comes_back_with_every_row(image: Path, tmp_path: Path) -> None:
    with Machine(image, tmp_path) as machine:
        wait_for("results in the outbox", lambda: said(machine, "before") is not None, BOOT_S)
        assert said(machine, "most") == pytest.approx(said(machine, "machine") / 2, rel=0.01), "MemoryMax=50%"
        wait_for("it is back", lambda: said(machine, "after") is not None, END_S)
        print(f"\nkilled at {said(machine, 'used') >> 20} MiB, restarts: {said(machine, 'restarts')}")
        assert any("killed by the OOM killer" in line for line in said(machine, "log")), machine.console
        assert (said(machine, "state"), said(machine, "restarts") >= 1) == ("active", True)
        assert said(machine, "again") != said(machine, "running")
        before, after = said(machine, "before"), said(machine, "after")
        assert sum(counts["pending"] for counts in before.values()) >= 3
        for key, counts in before.items():
            assert after[key]["pending"] >= counts["pending"], key
            assert after[key]["evicted"] == after[key]["refused"] == 0
