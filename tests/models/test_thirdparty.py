"""A package of somebody else brings a backend and an encoder: axond takes them, and the contract suite judges them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from drivers.packet import SensorInfo
from models import contract
from models.contract_networks import plain_network, write_bundle
from models.registry import make_encoder, make_stream_encoder
from models.select import load_backend
from tests.models import thirdparty

ROOT = Path(__file__).parents[2]
RANGER = SensorInfo("ultrasonic", ("distance",), ("mm",), (1.0,), 7.5)
ENCODER = {"kind": "near", "near_mm": list(range(100, 2500, 100))}
INPUT = {"family": "ultrasonic", "channels": ["distance"], "rate_hz": 7.5}
CONFIG = """
[sensors.ranger]
driver = "ultrasonic.maxbotix"
port = "/dev/null"

[pipelines.near]
sensors = ["ranger"]
model = "%s"
backend = ["mychip", "auto"]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    thirdparty.install(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
    sys.modules.pop("mychip", None)
    return folder


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=120, check=False, cwd="/"
    )


def test_the_suite_passes_it(site: Path) -> None:
    done = run("models.contract", "mychip", "--json")
    outcomes = json.loads(done.stdout)
    assert done.returncode == 0, [one for one in outcomes if one["outcome"] == "failed"]
    skipped = {one["name"] for one in outcomes if one["outcome"] == "skipped"}
    assert "gives the spikes and states of the reference: recurrent synapses" in skipped
    passed = {one["name"] for one in outcomes if one["outcome"] == "passed"}
    assert "gives the spikes and states of the reference: any bias" in passed
    assert "works the same in a process of its own" in passed
    assert {one["subject"] for one in outcomes} == {"backend mychip"}


def test_the_suite_passes_its_encoders(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert contract.main(["near"]) == 0
    text = capsys.readouterr().out
    assert "encoder of windows near" in text
    assert "encoder of streams near" in text
    assert "12 passed, 0 failed, 0 skipped" in text


def test_a_module_can_be_named(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert contract.main(["mychip"]) == 0
    capsys.readouterr()
    for name in ("axond_no_such_module", "pathlib"):
        assert contract.main([name]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_what_breaks_its_promise_fails(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (site / "mychip.py").read_text()
    (site / "mychip.py").write_text(code.replace("# toward zero", "- (z < 0)"))
    assert run("models.contract", "mychip").returncode == 1
    (site / "mychip.py").write_text("1 / 0\n")
    done = run("models.contract", "mychip")
    assert done.returncode == 1
    assert re.fullmatch(
        r"axond: backend 'mychip' \(mychip:BACKEND\) cannot be imported: ZeroDivisionError: division by zero; "
        r"repair or remove package thirdparty\n",
        done.stderr,
    )


def test_a_pipeline_can_name_both(site: Path, tmp_path: Path) -> None:
    made = write_bundle(
        tmp_path / "made",
        plain_network(),
        input=INPUT,
        encoder=ENCODER,
    )
    kind, backend = load_backend(made, ["mychip", "auto"])
    backend.close()
    assert kind == "mychip"
    assert make_encoder(made, RANGER).shape == (128, 24)
    path = tmp_path / "axond.toml"
    path.write_text(CONFIG % made.path)
    checked = run("agent", "check", "--config", str(path))
    assert checked.returncode == 0, checked.stderr
    verified = json.loads(run("agent", "model", "verify", f"{made.path}/", "--json").stdout)
    assert verified["backends"]["mychip"] == "identical"


def test_its_stream_encoder_serves_a_stream(site: Path, tmp_path: Path) -> None:
    made = write_bundle(
        tmp_path / "made", plain_network(), input=INPUT, encoder=ENCODER, state="carry", window=None, readout_steps=5
    )
    assert make_stream_encoder(made, RANGER).features == 24


def test_auto_does_not_take_what_was_not_named(site: Path, tmp_path: Path) -> None:
    kind, backend = load_backend(write_bundle(tmp_path / "made", plain_network()), "auto")
    backend.close()
    assert kind != "mychip"


def test_the_readme_shows_this_code() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    if "## Write a backend or an encoder" not in text:
        pytest.skip("the README has no such section")
    assert thirdparty.EXAMPLE.read_text(encoding="utf-8") in blocks
