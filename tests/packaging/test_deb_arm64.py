"""The arm64 package on an emulated arm64 (``make arm64``): the same decisions as here, bit for bit."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hil.compare.inferences import BACKENDS, SENSORS
from hil.guest import arm64

TREE = Path(__file__).parents[2]
FULL = pytest.mark.skipif("AXOND_ARM64" not in os.environ, reason="a quarter of an hour: make arm64")
FEWEST_ROWS = 300
DEMO_S = 60


def decide(python: list[str], folder: str) -> list[str]:
    return [*python, "-m", "hil.compare.inferences", "decide", folder]


@FULL
def test_a_minute_is_decided_as_on_this_machine(tmp_path: Path) -> None:
    if (reason := arm64.available()) is not None:
        pytest.skip(reason)
    shared = tmp_path / "shared"
    shared.mkdir()
    subprocess.run([sys.executable, "-m", "hil.compare.inferences", "make", str(shared)], cwd=TREE, check=True)
    ours = subprocess.run(
        decide([sys.executable], str(shared)), cwd=TREE, capture_output=True, text=True, check=True
    ).stdout
    build = [sys.executable, str(TREE / "packaging/deb/build.py"), "--arch", "arm64", "--fast", "--out", str(shared)]
    subprocess.run(build, check=True)

    (package,) = shared.glob("*.deb")

    with arm64.emulation(), arm64.root(tmp_path) as run:
        begin_s = time.monotonic()
        run("dpkg", "-i", f"/mnt/{package.name}", timeout_s=1800)
        print(f"\ninstalled in {time.monotonic() - begin_s:.0f} s")
        assert run("axond", "version").stdout.rstrip().endswith("aarch64)")
        begin_s = time.monotonic()
        python = ["/opt/axond/bin/python3", "-I"]
        theirs = run(*decide(python, "/mnt"), timeout_s=1800).stdout
        print(f"decided in {time.monotonic() - begin_s:.0f} s")
        demo = run("axond", "demo", "--seconds", str(DEMO_S), "--json", timeout_s=1800, check=False)

    assert len(ours.splitlines()) >= FEWEST_ROWS
    compare(ours.splitlines(), theirs.splitlines())
    if "qemu: uncaught target signal" in demo.stderr or "did not become ready" in demo.stderr:
        # Real time is not to be had from an emulator, and qemu's own threads do not always survive ours.
        pytest.skip(f"the live demo's {DEMO_S} s: {demo.stderr.strip().splitlines()[-1]}; the inferences are the same")
    assert demo.returncode == 0, demo.stderr[-2000:]
    print(demo.stdout[:2000])


def compare(ours: list[str], theirs: list[str]) -> None:
    rows = [json.loads(line) for line in ours]
    seen = Counter((row["model"].split("@")[0], row["backend"]) for row in rows)
    assert {*seen} == {(model, backend) for model in SENSORS for backend in BACKENDS}
    print({model: count for (model, backend), count in seen.items() if backend == "onnx"})
    others = [json.loads(line) for line in theirs]
    assert len(rows) == len(others)
    different = [(one, other) for one, other in zip(rows, others, strict=True) if one != other]
    assert different == [], f"{len(different)} of {len(rows)} inferences differ"
