"""``axond demo``, as `make run` calls it, for some seconds."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from models.datasets.load import find
from models.registry import ZOO
from tests.brokers import MOSQUITTO
from tests.end_to_end.rig import axond

pytestmark = [
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed"),
    pytest.mark.skipif(
        find("audio_fsdd") is None and shutil.which("espeak-ng") is None, reason="neither recordings nor espeak-ng"
    ),
    pytest.mark.skipif(not (ZOO / "spoken-digits").is_dir(), reason="the shipped models are not built"),
]


def test_demo_ends_with_nothing_lost_or_doubled() -> None:
    done = axond("demo", "--seconds", "8", "--json", timeout_s=90)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["ok"]
    assert all(p["results"] > 0 for p in summary["pipelines"].values())
    assert summary["hub_rows"] == summary["produced"]
    assert (summary["lost"], summary["duplicates"], summary["ledger_balanced"]) == (0, 0, True)
    assert summary["agent_stop_s"] < 10


def test_ctrl_c_sums_up() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "agent", "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        if demo.stdout is None:
            raise AssertionError("no pipe")
        for line in demo.stdout:
            if line.startswith("broker"):
                break
        demo.send_signal(signal.SIGINT)
        rest, errors = demo.communicate(timeout=60)
    assert "Traceback" not in rest + errors
    assert "ledger" in rest, rest + errors
