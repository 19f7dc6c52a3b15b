"""The support bundle: secrets are planted everywhere, and none of them is in it; what helps is."""

import ast
import io
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import doctor
from agent.__main__ import main
from agent.doctor import bundle
from agent.doctor.bundle import journal_line, make
from agent.doctor.checks import CHECKS
from agent.doctor.configuration import set_up
from agent.doctor.examine import examine
from agent.doctor.finding import Finding, Word
from agent.doctor.redact import Redactor
from tests.agent.doctor_stage import USB, Stage, staged

SLOW = ("accelerators", "sensors")


def secret(number: int) -> str:
    return f"geheim{number}x"


PLANTED = re.compile(rb"geheim\d+x", re.IGNORECASE)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as made:
        yield made


def plant(stage: Stage) -> None:
    """A different secret at every place that somebody can write to."""
    files = {name: stage.folder / f"{secret(n)}-{name}" for n, name in enumerate(("password", "ca", "cert", "key"), 50)}
    for n, path in enumerate(files.values(), 60):
        path.write_text(secret(n))
    stage.tables = {
        "device": f'id = "{secret(1)}"\nstate_dir = "{stage.state}"\nregion = "{secret(2)}"',
        f"sensors.{secret(3)}": f'driver = "imu.witmotion"\nport = "/dev/{secret(4)}"\nrate_hz = 50\nbaud = 9600',
        f"sensors.{secret(5)}": f'driver = "{secret(6)}"\ntoken = "{secret(7)}"\n"{secret(8)}" = 4711',
        f"sensors.{secret(9)}": f'driver = "imu.witmotion"\nport = {{ inline = "{secret(10)}" }}',
        f"pipelines.{secret(11)}": f'sensors = ["{secret(3)}"]\nmodel = "{secret(12)}"\n'
        f'backend = ["{secret(13)}", "onnx"]',
        "uplink": f'host = "mqtt://{secret(14)}:{secret(15)}@broker.invalid"\ntopic_root = "{secret(16)}/v1"\n'
        f'username = "{secret(17)}"\npassword_file = "{files["password"]}"\nca_file = "{files["ca"]}"\n'
        f'cert_file = "{files["cert"]}"\nkey_file = "{files["key"]}"\nport = 1234\nack = "broker"\n'
        f'fallbacks = ["{secret(18)}.invalid"]',
        f"mirrors.{secret(19)}": f'kind = "influx"\nurl = "http://u:{secret(20)}@h.invalid/"\ntoken = "{secret(21)}"',
        "log": f'level = "{secret(22)}"',
        "outbox": "max_bytes = 2097152",
        secret(23): f'password = "{secret(24)}"\npin = 99887766',
    }
    stage.write()
    stage.put(f"{USB}/serial", f"{secret(25)}\n")
    usb = stage.root / "sys/bus/usb/devices/1-1"
    usb.symlink_to(stage.root / USB)
    stage.put("usr/lib/systemd/system/axond.service.d/x.conf", f"[Service]\nEnvironment=TOKEN={secret(26)}\n")
    (stage.state / secret(27)).write_text(secret(28))
    stage.fill(30, stream=secret(29), text=secret(30))


def parts_of(bundle: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        return {Path(entry.name).name: tar.extractfile(entry).read() for entry in tar.getmembers()}  # type: ignore[union-attr]


def test_no_planted_secret_is_in_the_bundle(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(stage)
    monkeypatch.setenv("AXOND_TOKEN", secret(31))
    journal = stage.folder / "bin/journalctl"
    journal.parent.mkdir()
    entry = {"MESSAGE": f"login as {secret(32)}", "PRIORITY": "4", "AXOND_LOGGER": "agent.uplink", "CODE_LINE": "12",
             "_HOSTNAME": secret(33), "__REALTIME_TIMESTAMP": "1790000000000000", "MESSAGE_ID": secret(34)}  # fmt: skip
    journal.write_text(f"#!/bin/sh\ncat <<'E'\n{json.dumps(entry)}\nno json {secret(35)}\nE\n")
    journal.chmod(0o755)
    monkeypatch.setenv("PATH", f"{journal.parent}:{os.environ['PATH']}")

    scene = set_up(stage.config, stage.root)
    findings = examine(scene, [check for check in CHECKS if check.topic not in SLOW])
    told = json.dumps([finding.told() for finding in findings])
    assert len(set(PLANTED.findall(told.encode()))) > 10, "people see at the terminal what is wrong"
    parts = parts_of(make(scene, findings))
    for name, content in parts.items():
        assert PLANTED.findall(content) == [], name
        assert b"99887766" not in content and b"4711" not in content, "numbers of unknown keys are hidden as well"
        assert str(stage.folder).encode() not in content

    config = json.loads(parts["config.json"])
    assert config["uplink"]["port"] == 1234 and config["uplink"]["ack"] == "broker"
    assert config["outbox"] == {"max_bytes": 2097152}
    assert config["log"]["level"].startswith("<text of 9 characters")
    assert sorted(table.get("driver", "")[:6] for table in config["sensors"].values()) == ["<text ", "imu.wi", "imu.wi"]
    (pipeline,) = config["pipelines"].values()
    assert pipeline["backend"][1] == "onnx" and pipeline["sensors"][0].startswith("<text of")
    found = {finding["id"] for finding in json.loads(parts["doctor.json"])}
    assert {"config.wrong", "versions.system", "service.overridden"} <= found
    (line,) = json.loads(parts["journal.json"])
    assert (line["priority"], line["logger"], line["line"]) == (4, "agent.uplink", 12)
    (usb,) = json.loads(parts["usb.json"])
    assert usb["id"] == "1a86:7523" and usb["serial"].startswith("<text of")
    (ledger,) = json.loads(parts["outbox.json"])["ledger"].values()
    assert ledger["produced"] == 30


def test_equal_texts_are_equal_within_a_bundle_and_not_between_two() -> None:
    one, other = Redactor(), Redactor()
    assert one.hidden("imu0") == one.hidden("imu0") != one.hidden("imu1")
    assert one.hidden("imu0") != other.hidden("imu0")


def test_the_status_shows_numbers_and_states_alone() -> None:
    status: dict[str, Any] = {
        "device": secret(1),
        "sensors": {
            secret(2): {"state": "live", "rate_hz": 50.0, "problem": secret(3), "notes": {secret(4): secret(5)}}
        },
        "uplink": {"connected": True, "error": secret(6), secret(7): 12345},
        secret(8): [secret(9), 77777],
    }
    shown = Redactor().status(status)
    text = json.dumps(shown)
    assert not PLANTED.findall(text.encode()) and "12345" not in text and "77777" not in text
    (sensor,) = shown["sensors"].values()
    assert (sensor["state"], sensor["rate_hz"], shown["uplink"]["connected"]) == ("live", 50.0, True)


def test_of_a_log_line_the_place_is_shown_and_not_the_text() -> None:
    shown = journal_line({"MESSAGE": [1, 2], "AXOND_LOGGER": "agent.nothing", "PRIORITY": secret(1)}, Redactor())
    assert shown["message"] == "<list of 2>" and shown["priority"] is None
    assert shown["logger"].startswith("<text of 13 characters")


def test_a_journal_that_does_not_answer_is_left_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = stage.folder / "bin/journalctl"
    journal.parent.mkdir()
    journal.write_text("#!/bin/sh\nexec sleep 60\n")
    journal.chmod(0o755)
    monkeypatch.setenv("PATH", f"{journal.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(bundle, "LOG_S", 0.2)
    assert json.loads(parts_of(make(set_up(stage.config, stage.root), []))["journal.json"]) == []


def test_places_are_keys_of_ours_and_paths_of_the_kernel() -> None:
    place = Redactor().place
    for ours in ("uplink.fallbacks.0", "axond.service", "/sys/class/rtc", "/dev/ttyUSB0"):
        assert place(ours) == ours
    for theirs in ("sensors.4915123456", "/proc/self/cwd/geheim1x", "/sys/../home/geheim2x"):
        assert theirs.rpartition("/")[2].rpartition(".")[2] not in place(theirs)


def test_of_a_finding_words_of_ours_and_numbers_are_shown() -> None:
    facts = {"a": "text", "b": Word("word"), "c": 5}
    finding = Finding("t.x", "note", "{a} {b} {c:d}", "sensors.mine.port", facts=facts)
    shown = Redactor().finding(finding)
    assert re.fullmatch(r"<text of 4 characters, #\w{6}> word 5", shown["seen"])
    assert re.fullmatch(r"sensors\.#\w{6}\.port", shown["where"])


TEMPLATES = {
    "Finding": {2: "seen", 4: "remedy", 5: "commands"},
    "failed": {3: "seen", 4: "remedy", 5: "commands"},
    "passed": {3: "seen"},
}
"""Which arguments of these calls are templates."""
CONSTANTS = {"RIGHTS", "UNDO", "log", "show", "compare", "seen", "remedy", "commands"}
"""Names of texts that are written in the program, and the parameters of the two that make findings of steps."""


def test_templates_are_constants() -> None:
    """A text that somebody else wrote can only be a fact: the templates of findings go into the bundle as they are."""
    wrong = []
    calls = 0
    for path in sorted(Path(doctor.__path__[0]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or (name := getattr(node.func, "id", "")) not in TEMPLATES:
                continue
            calls += 1
            places = TEMPLATES[name]
            templates = [argument for n, argument in enumerate(node.args) if n in places]
            templates += [keyword.value for keyword in node.keywords if keyword.arg in places.values()]
            assert templates
            wrong += [f"{path.name}:{node.lineno}" for template in templates if not _constant(template)]
    assert calls > 90
    assert wrong == []


def _constant(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return _constant(node.body) and _constant(node.orelse)
    if isinstance(node, ast.BinOp):
        return _constant(node.left) and _constant(node.right)
    if isinstance(node, ast.Tuple):
        return all(_constant(part.value if isinstance(part, ast.Starred) else part) for part in node.elts)
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id in CONSTANTS)


def test_the_file_is_for_its_owner_alone_and_whole(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.cli.doctor.CHECKS", [check for check in CHECKS if check.topic not in SLOW])
    stage.config.write_text("[device")
    out = stage.folder / "support.tar.gz"
    out.write_text("old")
    assert main(["doctor", "--config", str(stage.config), "--bundle", str(out)]) == 78
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert set(parts_of(out.read_bytes())) >= {"doctor.json", "config.json", "status.json", "README.txt"}
    assert "config.file" in capsys.readouterr().out
    assert main(["doctor", "--config", str(stage.config), "--bundle", "/none/x.tar.gz"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_exit_codes_and_what_the_help_promises(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = [check for check in CHECKS if check.topic not in SLOW]
    monkeypatch.setattr("agent.cli.doctor.CHECKS", quick)
    config = ["--config", str(stage.config)]
    assert main(["doctor", *config]) == 0
    stage.imu(stage.folder / "none")
    assert main(["doctor", *config]) == 1
    assert "sudo dmesg" in capsys.readouterr().out
    stage.table("log", "x = 1")
    assert main(["doctor", *config, "--json"]) == 78
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"format", "axond", "config", "agent_runs", "runs_as", "counts", "findings"}
    assert document["counts"]["problem"] == sum(one["level"] == "problem" for one in document["findings"])
    assert set(document["findings"][0]) == {"id", "topic", "level", "where", "seen", "remedy", "commands"}
    assert {"config.wrong", "serial.missing"} <= {one["id"] for one in document["findings"]}, "the rest is looked at"
    assert main(["doctor", "--config", str(stage.folder / "none.toml")]) == 78
    assert main(["doctor", "--no-such-option"]) == 2
    assert main(["doctor", "--help"]) == 0
    assert '"counts"' in capsys.readouterr().out
