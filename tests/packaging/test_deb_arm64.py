"""The arm64 package on an emulated arm64 machine (``make arm64``): installed, live for a minute, decides as we do."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hil.compare import live
from hil.compare.inferences import BACKENDS, SENSORS
from hil.demo.report import stored_rows
from hil.guest import arm64

TREE = Path(__file__).parents[2]
FULL = pytest.mark.skipif("AXOND_ARM64" not in os.environ, reason="half an hour: make arm64")
FEWEST_ROWS = 300
DEMO_S = 60
MACHINE_S = 3 * 3600.0
RECORDINGS = ("mic.npz", "imu.npz", "cam.npz")
SCRIPT = f"""
dpkg -i /root/inputs/axond.deb
cat /proc/uptime
axond version >version
systemctl is-active axond >active
axond status --json >status.json
systemctl stop axond
cat /proc/uptime
python() {{ /opt/axond/bin/python3 -I -m "$@"; }}
axond demo --seconds {DEMO_S} --json --keep /root/results/demo >demo.json 2>demo.err || echo $? >demo.failed
cat demo.err /proc/uptime
python hil.compare.live save .
python hil.compare.inferences decide /root/inputs >decided
cat /proc/uptime
"""
"""What the machine does; the times go to its console."""


@FULL
def test_a_minute_is_decided_as_on_this_machine(tmp_path: Path) -> None:
    if (reason := arm64.available()) is not None:
        pytest.skip(reason)
    shared = tmp_path / "shared"
    shared.mkdir()
    subprocess.run([sys.executable, "-m", "hil.compare.inferences", "make", str(shared)], cwd=TREE, check=True)
    build = [sys.executable, str(TREE / "packaging/deb/build.py"), "--arch", "arm64", "--fast", "--out", str(shared)]
    subprocess.run(build, check=True)
    (package,) = shared.glob("*.deb")

    begin_s = time.monotonic()
    inputs = {"axond.deb": package, **{name: shared / name for name in RECORDINGS}}
    results = arm64.act(tmp_path / "machine", inputs, SCRIPT, MACHINE_S)
    print(f"\nthe machine was on for {time.monotonic() - begin_s:.0f} s")

    assert (results / "version").read_text().rstrip().endswith("aarch64)")
    assert (results / "active").read_text().strip() == "active"
    assert json.loads((results / "status.json").read_text())["health"]["state"] == "ok"

    decide = [sys.executable, "-m", "hil.compare.inferences", "decide", str(shared)]
    ours = subprocess.run(decide, cwd=TREE, capture_output=True, text=True, check=True).stdout
    compare(ours.splitlines(), (results / "decided").read_text().splitlines())

    assert not (results / "demo.failed").exists(), (results / "demo.err").read_text()[-2000:]
    report = json.loads((results / "demo.json").read_text())
    print(json.dumps({name: report[name] for name in ("seconds", "pipelines", "ledger", "lost", "latency")}))
    judge(report)
    compare_live(report, results)


def compare(ours: list[str], theirs: list[str]) -> None:
    """Each inference of all models on recordings: spikes, potentials, label, score."""
    rows = [json.loads(line) for line in ours]
    assert len(rows) >= FEWEST_ROWS
    seen = Counter((row["model"].split("@")[0], row["backend"]) for row in rows)
    assert {*seen} == {(model, backend) for model in SENSORS for backend in BACKENDS}
    print({model: count for (model, backend), count in seen.items() if backend == "onnx"})
    others = [json.loads(line) for line in theirs]
    assert len(rows) == len(others)
    different = [(one, other) for one, other in zip(rows, others, strict=True) if one != other]
    assert different == [], f"{len(different)} of {len(rows)} inferences differ"


def judge(report: dict[str, Any]) -> None:
    """The demo ran its minute, and all that it produced is where it belongs."""
    assert report["ok"] is True
    assert report["seconds"] >= DEMO_S
    assert report["ledger_balanced"] is True
    assert (report["lost"], report["duplicates"]) == (0, 0)
    assert report["hub_rows"] == report["produced"] > 0
    assert all(pipeline["results"] > 0 for pipeline in report["pipelines"].values())


def compare_live(report: dict[str, Any], results: Path) -> None:
    """Each result of the live demo whose samples are known: those of microphone and IMU."""
    rows = stored_rows(results / "demo" / "hub.db")
    for pipeline in live.MODELS:
        mine = [row for row in rows if row["stream"] == pipeline]
        assert len(mine) == report["pipelines"][pipeline]["results"]
        verdict = live.check(pipeline, live.load(results / f"{pipeline}.npz"), mine)
        print(f"live {pipeline}: {verdict.same} same, {len(verdict.different)} different, {verdict.filled} not whole")
        assert verdict.different == []
        assert verdict.same > len(mine) / 2
