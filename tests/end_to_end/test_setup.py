"""A newcomer: ``axond setup`` at a real terminal or in a script, then the agent, then a first result in the outbox."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent import config
from agent.outbox_store import audit
from drivers.synthetic import motion
from hil.emulators.witmotion import WitmotionEmulator
from hil.guest.device import device, installable
from hil.guest.root import GuestError, cached_root
from tests.end_to_end.rig import Process, axond, bursts, wait_for

DEADLINE_S = 40.0
PATIENCE_S = 10.0
MADE = 'imu0={driver="synthetic", signal="motion", rate_hz=50}'
needs_setsid = pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid (util-linux) is not installed")


class Terminal:
    """A person's: what is shown, and what is typed."""

    def __init__(self, master: int, child: "subprocess.Popen[bytes]") -> None:
        self._master = master
        self.child = child
        self.shown = ""
        self._read = 0

    def expect(self, text: str) -> None:
        """Reads until ``text`` is shown after what was expected before."""
        end_s = time.monotonic() + DEADLINE_S
        while text not in self.shown[self._read :]:
            assert time.monotonic() < end_s, f"never shown: {text!r}; shown: {self.shown}"
            assert self._take(), f"ended without {text!r}; shown: {self.shown}"
        self._read = self.shown.index(text, self._read) + len(text)

    def type(self, line: str) -> None:
        os.write(self._master, line.encode())

    def answer(self, question: str, line: str = "") -> None:
        self.expect(question)
        self.type(line + "\n")

    def interrupt(self) -> int:
        """Ctrl-C, again if nothing happens: Python may look for signals, get one, and only then wait for a key."""
        for _ in range(3):
            self.type("\x03")
            while select.select([self._master], [], [], PATIENCE_S)[0]:
                if not self._take():
                    return self.child.wait(DEADLINE_S)
        raise AssertionError(f"Ctrl-C did not end it; shown: {self.shown}")

    def end(self) -> int:
        """Reads the rest; the exit code."""
        while self._take():
            pass
        return self.child.wait(DEADLINE_S)

    def _take(self) -> bool:
        if not select.select([self._master], [], [], DEADLINE_S)[0]:
            return False
        try:
            part = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.shown += part.decode("utf-8", "replace")
        return bool(part)


@contextmanager
def terminal(*arguments: str, kind: str = "xterm") -> Iterator[Terminal]:
    """``axond ARGUMENTS`` at a terminal of its own."""
    master, slave = os.openpty()
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "agent", *arguments]
    child = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": kind, "COLUMNS": "500"}
    )
    os.close(slave)
    try:
        yield Terminal(master, child)
    finally:
        os.close(master)  # the hang-up ends whoever is still there
        child.wait(DEADLINE_S)


def first_result(folder: Path, path: Path) -> int:
    """Runs the agent until a result is in the outbox; how many there are."""
    agent = Process("agent", folder, "run", "--config", str(path))
    db = config.load(path).device.state_dir / "outbox.db"
    try:
        wait_for("a first result", lambda: '"message": "axond runs' in agent.text() and db.exists() and results(db) > 0)
        assert agent.stop()[0] == 0, agent.text()
    finally:
        agent.kill()
    return results(db)


def results(db: Path) -> int:
    return sum(counts.produced for counts in audit(db).values())


@needs_setsid
def test_a_person_with_a_sensor_comes_to_a_first_result(tmp_path: Path) -> None:
    path = tmp_path / "axond.toml"
    rows = motion("walking", 3000, np.random.default_rng(1))
    with WitmotionEmulator(rows, 50.0, tmp_path / "imu") as sensor:
        with terminal("setup", "--config", str(path), "--port", str(sensor.link)) as person:
            person.answer("Name of this device", "Not A Name")
            person.expect("1 to 63 of a-z")
            person.answer("Name of this device", "gate-7")
            person.answer("Its region")
            person.answer("Folder for results and models")
            person.expect("listening at 115200 baud")
            while "imu.witmotion" not in person.shown:  # microphones of this machine may come first
                person.expect("Use it?")
                if "imu.witmotion" not in person.shown:
                    person.type("n\n")
            person.type("y\n")
            person.answer("Its name", "wrist")
            person.answer("Pipeline: wrist -> activity")
            person.answer("MQTT broker", "broker.example:1884")
            person.answer("User name at the broker", "gate-7")
            person.answer("Its password", "open sesame")
            person.expect("Networks can run on")
            person.answer(f"Write {path}?")
            person.expect("is written and right")
            assert person.end() == 0, person.shown
        assert "sesame" not in person.shown
        settings = config.load(path)
        assert settings.device.id == "gate-7"
        assert settings.sensors["wrist"].kind == "imu.witmotion"
        assert settings.pipelines["activity"].sensors == ["wrist"]
        assert settings.uplink is not None and settings.uplink.port == 1884
        assert settings.uplink.password_file is not None
        assert settings.uplink.password_file.read_text() == "open sesame"
        assert f"axond run --config {path}" in person.shown
        assert first_result(tmp_path, path) > 0


@needs_setsid
def test_ctrl_c_at_any_question_and_a_hang_up_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "axond.toml"
    arguments = ("setup", "--config", str(path), "--sensor", MADE, "--id", "d1", "--region", "r", "--state-dir", "/x")
    questions = ["Use it?", "Its name", "Pipeline", "MQTT broker", "User name", "password", "Write"]
    given = {"MQTT broker": "b", "User name": "u", "password": "p"}
    for stop in ("Use it?", "password", "Write"):
        with terminal(*arguments, kind="dumb") as person:
            for question in questions[: questions.index(stop)]:
                person.answer(question, given.get(question, ""))
            person.expect(stop)
            assert person.interrupt() == 130, person.shown
        assert "\x1b[" not in person.shown, "a dumb terminal understands no colours"
        assert "Traceback" not in person.shown
        assert not path.parent.exists()
    with terminal(*arguments) as person:
        person.expect("Use it?")
    assert person.child.returncode != 0
    assert not path.parent.exists()


@needs_setsid
def test_a_configuration_that_is_there_stays_unless_one_says_so(tmp_path: Path) -> None:
    path = tmp_path / "axond.toml"
    path.write_text('[sensors.mine]\ndriver = "synthetic"\n')
    with terminal("setup", "--config", str(path), "--sensor", MADE) as person:
        person.answer("Replace it (it is kept as axond.toml.bak-1)?")
        assert person.end() == 1
    assert "mine" in path.read_text()


def test_a_script_comes_to_a_first_result(tmp_path: Path) -> None:
    """Speech and noise from a file, and motion that is computed: what needs no device."""
    soundfile.write(tmp_path / "sound.wav", np.repeat(bursts(20), 2), 16000, subtype="PCM_16")
    path = tmp_path / "axond.toml"
    sound = f'mic0={{driver="audio.file", path="{tmp_path}/sound.wav", rate_hz=16000}}'
    done = axond("setup", "--yes", "--config", str(path), "--sensor", sound, "--sensor", MADE)
    assert done.returncode == 0, done.stderr
    assert config.load(path).device.state_dir == tmp_path / "axond-state"
    assert first_result(tmp_path, path) > 0


FULL = os.environ.get("AXOND_SERVICE") == "full"
"""``make service`` sets it."""
PACKAGED = Path(__file__).parents[2] / "packaging" / "deb" / "axond.toml"


@pytest.mark.skipif(not FULL, reason="a booted systemd takes half a minute: make service")
def test_from_the_package_to_a_first_result_with_setup_alone(tmp_path: Path) -> None:
    """In a booted systemd: the service runs as the package leaves it; then setup, a backup, a lost disk, a restore."""
    if (reason := installable()) is not None:
        pytest.skip(reason)
    try:
        cached_root()
    except GuestError as error:
        pytest.skip(str(error))
    with device(tmp_path / "guest") as made:
        guest = made.guest
        made.configure(PACKAGED.read_text())
        guest.run("systemctl", "start", "axond")
        made.plug_sensor("/dev/imu0")
        wait_for("the sensor is plugged in", lambda: guest.run("test", "-e", "/dev/imu0", check=False).returncode == 0)
        broker = ("--broker", "127.0.0.1", "--username", "gate-7", "--password-stdin")
        setup = guest.run(
            "axond", "setup", "--yes", "--json", "--id", "gate-7", "--port", "/dev/imu0", *broker, text_in="sesame\n"
        )
        facts = json.loads(setup.stdout)
        assert facts["sensors"] == {"imu0": "imu.witmotion"}, facts
        assert facts["started"] and facts["first_result"]["pipeline"] == "activity", facts
        assert facts["kept"] == "/etc/axond/axond.toml.bak-1"
        assert guest.run("stat", "-c", "%a %U", "/etc/axond/credentials/mqtt-password").stdout == "600 root\n"
        wait_for("the password was read, and nobody is there", lambda: "cannot reach" in str(made.status()["uplink"]))

        guest.run("axond", "backup", "/root/axond.tar.zst", "--with-secrets")
        guest.run("systemctl", "stop", "axond")
        waiting = made.outbox()["rows"]
        guest.run("rm", "-rf", "/etc/axond/axond.toml", "/etc/axond/credentials")
        guest.run("sh", "-c", "rm -rf /var/lib/axond")
        restored = json.loads(guest.run("axond", "restore", "/root/axond.tar.zst", "--json").stdout)
        assert 0 < restored["results"] <= waiting, restored
        assert restored["problem"] is None
        owners = guest.run("sh", "-c", "stat -c %U /var/lib/axond /var/lib/axond/* | sort -u").stdout
        assert owners == "axond\n"
        guest.run("systemctl", "start", "axond")
        wait_for("results again", lambda: made.status().get("outbox", {}).get("rows", 0) > restored["results"])
        assert made.status()["device"] == "gate-7"
    shutil.rmtree(tmp_path / "guest", ignore_errors=True)
