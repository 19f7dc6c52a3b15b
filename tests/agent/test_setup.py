"""``axond setup`` without anybody to ask: what it finds fitting, what it writes, and what it never does."""

import io
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent import config
from agent.__main__ import main
from agent.config_files import parse_toml
from agent.setup.ask import Ask, Person
from agent.setup.look import AUDIO_HZ, Candidate, give_names, look, made, usable
from agent.setup.propose import Plan, add, bundles, connect, explain_unused, fitting
from agent.setup.talk import Given, talk
from agent.setup.text import value
from drivers import inventory
from drivers.synthetic import motion
from hil.emulators.witmotion import WitmotionEmulator

MADE = 'imu0={driver="synthetic", signal="motion", rate_hz=50}'


def setup(folder: Path, *arguments: str) -> int:
    return main(["setup", "--yes", "--config", str(folder / "axond.toml"), *arguments])


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Values and text


_values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab \"'.=\n", min_size=0), inner, max_size=3),
    max_leaves=8,
)


@given(_values)
def test_values_are_read_as_they_were_written(item: Any) -> None:
    assert parse_toml(f"key = {value(item)}")["key"] == item


def candidate(kind: str, name: str = "", **settings: Any) -> Candidate:
    return Candidate(kind, "somewhere", [settings], name=name)


def test_models_and_sensors_find_each_other() -> None:
    models = bundles()
    names = {bundle.manifest.name for bundle in models}
    assert {"activity", "wake-words", "spoken-digits", "fused-digits"} <= names
    mic = candidate("audio.alsa", "mic0", device="plughw:CARD=x", rate_hz=8000)
    cam = candidate("event_camera.edvs", "cam0", port="/dev/cam")
    imu = candidate("imu.witmotion", "imu0", port="/dev/imu", rate_hz=50)
    other = candidate("imu.witmotion", "imu1", port="/dev/imu1", rate_hz=50)
    fast = candidate("imu.witmotion", "imu2", port="/dev/imu2", rate_hz=100)
    plan = Plan()
    for one in (mic, cam, imu, other, fast):
        add(plan, one)
    infos = {one.name: one.info() for one in (mic, cam, imu, other, fast)}
    connect(plan, fitting(infos, models))
    explain_unused(plan, infos, models)
    assert plan.pipelines["fused-digits"] == (["mic0", "cam0"], "fused-digits")
    assert plan.pipelines["activity-imu0"] == (["imu0"], "activity")
    assert plan.pipelines["activity-imu1"] == (["imu1"], "activity")
    assert plan.pipelines["spoken-digits"] == (["mic0"], "spoken-digits")
    assert set(plan.unused) == {"imu2"}
    assert "activity wants 50 Hz" in plan.unused["imu2"]


def test_what_is_proposed_for_a_microphone_fits_at_each_rate() -> None:
    for rate_hz in AUDIO_HZ:
        mic = candidate("audio.alsa", "mic0", device="plughw:CARD=x", rate_hz=rate_hz)
        assert fitting({"mic0": mic.info()}, bundles())
    assert fitting({"made0": made().info()}, bundles())


def test_names_are_short_and_different() -> None:
    found = [
        candidate("imu.witmotion", port="/a"),
        candidate("audio.alsa", device="plughw:CARD=x"),
        candidate("imu.witmotion", port="/b"),
        candidate("ultrasonic.a02", port="/c"),
    ]
    give_names(found, taken=["imu0"])
    assert [one.name for one in found] == ["imu1", "mic0", "imu2", "sonar0"]
    assert usable(found[0]) is None
    assert "rate_hz" in str(usable(candidate("imu.witmotion", "imu0", port="/a", rate_hz="x")))


# What is plugged in


def test_an_emulated_sensor_is_found_and_others_are_explained(tmp_path: Path) -> None:
    rows = motion("walking", 500, np.random.default_rng(1))
    with WitmotionEmulator(rows, 50.0, tmp_path / "imu") as sensor:
        looked = look([str(sensor.link), str(tmp_path / "absent")], lambda sentence: None)
    (found,) = [one for one in looked.candidates if one.kind.startswith("imu")]
    assert (found.kind, found.name) == ("imu.witmotion", "imu0")
    assert found.variants == [{"port": str(sensor.link), "baud": 115200, "rate_hz": 50}]
    assert any("does not exist" in problem for problem in looked.problems)


@pytest.mark.parametrize("asked", [[], ["/dev/ttyX9"], ["/dev/serial/by-id/x"]])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"holder": "ModemManager (77)"}, "is held by ModemManager (77)"),
        ({"access": "no: group dialout"}, "may not be opened by this user (no: group dialout)"),
    ],
)
def test_ports_that_cannot_be_used_are_explained(
    changes: dict[str, str], sentence: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {
        "device": "/dev/ttyX9",
        "stable": "/dev/serial/by-id/x",
        "usb_id": None,
        "product": "",
        "holder": None,
        "access": "ok",
    }
    port = inventory.SerialPort(**{**facts, **changes})  # type: ignore[arg-type]
    monkeypatch.setattr(inventory, "serial_ports", lambda: [port])
    looked = look(asked, lambda text: None)
    assert any(sentence in problem for problem in looked.problems)


def test_microphones_and_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "serial_ports", list)
    mics = [inventory.CaptureDevice("hw:CARD=Array,DEV=0", "ReSpeaker", None)]
    mics.append(inventory.CaptureDevice("hw:CARD=Other,DEV=0", "Webcam", "arecord (9)"))
    cams = [inventory.EventCamera(usb_id, "Cam", "ok") for usb_id in ("152a:8419:S1", "04b4:00f5", "1409:8e00")]
    monkeypatch.setattr(inventory, "capture_devices", lambda: mics)
    monkeypatch.setattr(inventory, "event_cameras", lambda: cams)
    monkeypatch.setattr("agent.setup.look.find_spec", lambda name: object())
    looked = look([], lambda text: None)
    assert [(one.name, one.kind) for one in looked.candidates] == [
        ("mic0", "audio.alsa"),
        ("cam0", "event_camera.usb"),
        ("cam1", "event_camera.usb"),
    ]
    assert looked.candidates[0].variants[0] == {"device": "plughw:CARD=Array,DEV=0", "rate_hz": 16000}
    assert looked.candidates[1].variants[0] == {"device": "dvxplorer", "serial": "S1"}
    assert all(usable(one) is None for one in looked.candidates)
    assert len(looked.problems) == 2
    monkeypatch.setattr("agent.setup.look.find_spec", lambda name: None)
    without = look([], lambda text: None)
    assert without.candidates == []
    assert "python3-alsaaudio" in without.problems[0]
    assert sum("pip install 'axond[events]'" in problem for problem in without.problems) == 2


# What is written


def test_a_microphone_s_recording_becomes_a_configuration(tmp_path: Path, capfd: Any) -> None:
    soundfile.write(tmp_path / 'a "b".wav', np.zeros(16000, np.int16), 16000)
    sensor = f'mic0={{driver="audio.file", path=\'{tmp_path}/a "b".wav\', rate_hz=16000}}'
    assert setup(tmp_path, "--id", "gate-7", "--profile", "pi", "--sensor", sensor, "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["pipelines"] == {"sound-events": "sound-events", "wake-words": "wake-words"}
    assert facts["next"][0].startswith("axond run --config ")
    settings = config.load(tmp_path / "axond.toml")
    assert (settings.device.id, settings.profile.name) == ("gate-7", "pi")
    assert str(settings.sensors["mic0"].settings.path).endswith('a "b".wav')
    assert stat.S_IMODE((tmp_path / "axond.toml").stat().st_mode) == 0o644
    assert left_behind(tmp_path) == ['a "b".wav', "axond.toml"]


def test_without_a_sensor_a_made_one_gives_a_first_result(tmp_path: Path, capfd: Any) -> None:
    assert setup(tmp_path, "--port", str(tmp_path / "absent")) == 0
    said = capfd.readouterr().out
    assert "sensor made0: synthetic" in said and "does not exist" in said and "next: axond run" in said
    assert "no device: it is computed" in (tmp_path / "axond.toml").read_text()
    assert setup(tmp_path, "--port", str(tmp_path / "absent"), "--model", "wake-words", "--overwrite") == 0
    assert config.load(tmp_path / "axond.toml").sensors == {}


def test_the_password_is_in_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("open sesame\n"))
    broker = ("--broker", "[::1]:1884", "--username", "d 1", "--password-stdin")
    assert setup(tmp_path, "--sensor", MADE, *broker) == 0
    secret = tmp_path / "credentials" / "mqtt-password"
    assert secret.read_text() == "open sesame"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    uplink = config.load(tmp_path / "axond.toml").uplink
    assert uplink is not None
    assert (uplink.host, uplink.port, uplink.username, uplink.password_file) == ("::1", 1884, "d 1", secret)
    said = capfd.readouterr()
    assert "sesame" not in (tmp_path / "axond.toml").read_text() + said.out + said.err


def test_a_configuration_that_says_something_is_not_replaced_unasked(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "axond.toml"
    for text in ('[sensors.s]\ndriver = "synthetic"\n', "not toml at all", '[uplink]\nhost = "b"\n'):
        path.write_text(text)
        assert setup(tmp_path, "--sensor", MADE) == 1
        assert "--overwrite replaces it" in capfd.readouterr().err
        assert path.read_text() == text
        assert left_behind(tmp_path) == ["axond.toml"]
    assert setup(tmp_path, "--sensor", MADE, "--overwrite") == 0
    assert (tmp_path / "axond.toml.bak-1").read_text() == '[uplink]\nhost = "b"\n'


def test_what_was_replaced_is_kept_the_newest_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr("agent.setup.save.KEPT", 2)
    path = tmp_path / "axond.toml"
    (tmp_path / "axond.toml.bak-mine").write_text("a person's")
    for number in range(1, 5):
        path.write_text(f'[uplink]\nhost = "b{number}"\n')
        assert setup(tmp_path, "--sensor", MADE, "--overwrite") == 0
        kept = tmp_path / f"axond.toml.bak-{number}"
        assert f"what was there before: {kept}" in capfd.readouterr().out
        assert f'host = "b{number}"' in kept.read_text()
    mine = {f"axond.toml.bak-{name}" for name in (3, 4, "mine")}
    assert set(left_behind(tmp_path)) == {"axond.toml", *mine}


def test_setup_again_and_again_crowds_out_nothing(tmp_path: Path) -> None:
    """What setup wrote itself, and writes again, is kept once."""
    (tmp_path / "axond.toml").write_text('[uplink]\nhost = "b"\n')
    for _ in range(4):
        assert setup(tmp_path, "--sensor", MADE, "--overwrite") == 0
    assert 'host = "b"' in (tmp_path / "axond.toml.bak-1").read_text()
    assert left_behind(tmp_path) == ["axond.toml", "axond.toml.bak-1", "axond.toml.bak-2"]


def test_the_package_s_empty_configuration_is_replaced_and_its_name_stays(tmp_path: Path) -> None:
    (tmp_path / "axond.toml").write_text(f'# nothing yet\n[device]\nid = "mine"\nstate_dir = "{tmp_path}/s"\n')
    assert setup(tmp_path, "--sensor", MADE) == 0
    settings = config.load(tmp_path / "axond.toml")
    assert (settings.device.id, settings.device.state_dir) == ("mine", tmp_path / "s")
    assert "# nothing yet" in (tmp_path / "axond.toml.bak-1").read_text()


def test_what_would_not_be_right_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    (tmp_path / "axond.toml.d").mkdir()
    (tmp_path / "axond.toml.d" / "50.toml").write_text('[pipelines.activity]\nbackend = "nonsense"\n')
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    broker = ("--broker", "b", "--username", "u", "--password-stdin")
    assert setup(tmp_path, "--sensor", MADE, *broker) == 1
    said = capfd.readouterr().err
    assert "nothing was written" in said and "nonsense" in said and ".axond-scratch" not in said
    assert left_behind(tmp_path) == ["axond.toml.d"]


def test_a_drop_in_that_says_another_name_is_not_hidden(tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "axond.toml.d").mkdir()
    (tmp_path / "axond.toml.d" / "zz.toml").write_text('[device]\nid = "d2"\n')
    assert setup(tmp_path, "--sensor", MADE, "--id", "d9") == 1
    assert "says device.id = 'd2'" in capfd.readouterr().err
    assert left_behind(tmp_path) == ["axond.toml.d"]
    assert setup(tmp_path, "--sensor", MADE, "--id", "d2") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--sensor", "nonsense"], 2, "is no sensor"),
        (["--sensor", 'x={driver="imu.nothing"}'], 2, "there is no driver 'imu.nothing'"),
        (["--sensor", 'X Y={driver="synthetic"}'], 2, "is no sensor"),
        (["--sensor", 'x={driver="synthetic", seed=-1}'], 1, "seed"),
        (["--sensor", MADE, "--sensor", MADE], 1, "is there twice"),
        (["--sensor", MADE, "--model", "no-such"], 1, "there are activity"),
        (["--sensor", MADE, "--broker", "a b"], 1, "is no address"),
        (["--sensor", MADE, "--broker", "a", "--username", "u"], 1, "has no password"),
        (["--sensor", MADE, "--broker", "a", "--password-file", "x"], 1, "a password without a user name"),
        (["--sensor", MADE, "--broker", "a", "--username", "u", "--password-file", "absent"], 1, "cannot be read"),
        (["--sensor", MADE, "--broker", "a", "--ca-file", "absent.pem"], 1, "ca_file"),
        (["--sensor", MADE, "--broker", "a", "--no-broker"], 2, "not allowed with"),
        (["--sensor", MADE, "--username", "u", "--password-file", "x"], 1, "without a broker"),
        (["--sensor", MADE, "--ca-file", "x", "--no-broker"], 1, "without a broker"),
        (["--sensor", MADE, "--broker", "\udcff"], 1, "no text in UTF-8"),
        (["--id", "Not Allowed"], 2, "1 to 63"),
        (["--profile", "toaster"], 2, "invalid choice"),
    ],
)
def test_wrong_answers_are_one_sentence(
    tmp_path: Path, arguments: list[str], code: int, sentence: str, capfd: Any
) -> None:
    assert setup(tmp_path, *arguments) == code
    said = capfd.readouterr().err
    assert sentence in said and "Traceback" not in said
    assert left_behind(tmp_path) == []


def test_nobody_to_ask_and_a_place_that_cannot_be_written(tmp_path: Path, capfd: Any) -> None:
    assert main(["setup", "--config", str(tmp_path / "axond.toml")]) == 1
    assert "add --yes" in capfd.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["setup", "--yes", "--sensor", MADE, "--config", str(tmp_path / "file" / "axond.toml")]) == 1
    assert "nothing was written" in capfd.readouterr().err


def test_a_password_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), "utf-8"))
    assert setup(tmp_path, "--sensor", MADE, "--broker", "b", "--username", "u", "--password-stdin") == 1
    assert "no text in UTF-8" in capfd.readouterr().err
    assert left_behind(tmp_path) == []


def test_a_pipeline_that_nobody_wants_is_no_model_that_is_missing(tmp_path: Path) -> None:
    class Unwilling(Ask):
        def yes(self, question: str, default: bool = True) -> bool:
            return default and not question.startswith("Pipeline")

    said = talk(Given(tmp_path / "axond.toml", sensors=[made()], no_broker=True), Unwilling(), None)
    assert said.answers.plan.pipelines == {}
    assert said.answers.plan.unused == {}


def test_what_a_device_says_of_itself_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n\n"))
    person = Person(Console(file=shown, width=200))
    assert person.yes("Sensor: [USB] Audio [/x]. Use it?")
    assert person.text("Its name [/b]", "mic0") == "mic0"
    assert "[USB] Audio [/x]" in shown.getvalue()


def test_start_without_a_service_says_what_to_do(tmp_path: Path, capfd: Any) -> None:
    assert setup(tmp_path, "--sensor", MADE, "--start") == 1
    assert "systemd has no service for it here; next: axond run" in capfd.readouterr().err
    assert (tmp_path / "axond.toml").exists()
