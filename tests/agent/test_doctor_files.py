"""The doctor finds faults that were seeded in files: configuration, models, permissions, certificates, outbox, disk.

Each is tried alone on a healthy stage: its finding is absent before, names the place, and goes with the remedy.
"""

import io
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from grp import getgrall
from pwd import getpwall

import pytest
from rich.console import Console

from agent.doctor import accelerators
from agent.doctor.checks import CHECKS
from agent.doctor.configuration import set_up
from agent.doctor.examine import examine
from agent.doctor.finding import Finding
from agent.doctor.scene import User, runner, user_of
from agent.doctor.view import show
from agent.outbox import Outbox
from agent.outbox_file import set_asides
from agent.outbox_store import OutboxLimits
from models.registry import ZOO
from tests.agent.doctor_stage import Fault, Stage, check, staged
from tests.conftest import Running

ROOT = os.geteuid() == 0
ACTIVITY = "activity"
PIPELINE = 'sensors = ["imu0"]\nmodel = "{model}"'


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as made:
        yield made


def nobody(*groups: int) -> User:
    """A user who is not us and is in no group that matters."""
    entry = next(entry for entry in getpwall() if entry.pw_name == "nobody")
    return User("nobody", entry.pw_uid, frozenset((entry.pw_gid, *groups)))


def drop_in(stage: Stage, text: str) -> None:
    folder = stage.config.with_name("axond.toml.d")
    folder.mkdir(exist_ok=True)
    (folder / "50-site.toml").write_text(text)


def pipeline(stage: Stage, model: str = ACTIVITY, more: str = "") -> None:
    stage.table("pipelines.motion", PIPELINE.format(model=model) + f"\n{more}")


def with_imu(stage: Stage) -> None:
    stage.table("sensors.imu0", 'driver = "imu.witmotion"\nport = "/dev/none"\nrate_hz = 50')


def own_model(stage: Stage) -> None:
    """A copy of a shipped bundle, with one byte of its network changed."""
    with_imu(stage)
    copy = stage.state / "models/mine"
    shutil.copytree(ZOO / ACTIVITY, copy)
    network = copy / "network.npz"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    pipeline(stage, "mine")


def whole_model(stage: Stage) -> None:
    shutil.copy(ZOO / ACTIVITY / "network.npz", stage.state / "models/mine/network.npz")


def misfit(stage: Stage) -> None:
    with_imu(stage)
    pipeline(stage, "spoken-digits")


def only_lava(stage: Stage) -> None:
    with_imu(stage)
    pipeline(stage, more='backend = ["lava"]')


def secret(stage: Stage, mode: int) -> None:
    path = stage.folder / "password"
    path.write_text("hunter2\n")
    path.chmod(mode)
    stage.table("uplink", f'host = "localhost"\nusername = "d1"\npassword_file = "{path}"')


def as_nobody(stage: Stage) -> None:
    stage.runner = nobody()
    secret(stage, 0o600)


def port_of_a_group(stage: Stage) -> None:
    """As udev makes it: root:dialout 0660."""
    port = stage.port()
    stage.imu(port)
    os.chown(port, 0, group())
    port.chmod(0o660)
    stage.runner = nobody()


def group() -> int:
    return next((entry.gr_gid for entry in getgrall() if entry.gr_name == "dialout"), 20)


def foreign_state(stage: Stage) -> None:
    stage.runner = nobody()


def foreign_outbox(stage: Stage) -> None:
    stage.fill()
    stage.runner = nobody()
    os.chown(stage.state, nobody().uid, -1)


def give(stage: Stage) -> None:
    for path in (stage.state, *stage.state.iterdir()):
        os.chown(path, nobody().uid, -1)


def recover(stage: Stage) -> None:
    """An agent that starts saves what can be read."""
    outbox = Outbox(stage.state / "outbox.db", boot="b2", limits=OutboxLimits(32 << 20, keep_free_bytes=0))
    run = Running(outbox)
    assert outbox.opened.wait(10)
    run.stop()


def damage(stage: Stage) -> None:
    stage.fill()
    path = stage.state / "outbox.db"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)


def damage_and_recover(stage: Stage) -> None:
    damage(stage)
    recover(stage)


def remove_asides(stage: Stage) -> None:
    for path in set_asides(stage.state / "outbox.db"):
        path.unlink()


def crowd(stage: Stage) -> None:
    stage.table("outbox", "max_bytes = 1048576\nkeep_free_bytes = 0")
    stage.fill(400, 3000)


def stamp(when: str) -> Callable[[Stage], None]:
    """Stored results as an agent with another clock, or of another day, has them."""

    def seed(stage: Stage) -> None:
        stage.fill(50)
        stage.table("uplink", 'host = "localhost"')
        with closing(sqlite3.connect(stage.state / "outbox.db")) as connection:
            connection.execute(f"UPDATE batches SET created_us = {when}")
            connection.commit()

    return seed


def deliver(stage: Stage) -> None:
    outbox = Outbox(stage.state / "outbox.db", boot="b2", limits=OutboxLimits(32 << 20, keep_free_bytes=0))
    run = Running(outbox)
    assert outbox.opened.wait(10)
    while records := outbox.lease(500, 0.5):
        outbox.settle(records)
    run.stop()


def mount(options: str) -> Callable[[Stage], None]:
    def seed(stage: Stage) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", stage.state]
        if not ROOT or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("may not mount a small disk")
        stage.stack.callback(subprocess.run, ["umount", "-l", stage.state], capture_output=True, check=False)
        if "nr_inodes" in options:
            for number in range(30):
                try:
                    (stage.state / str(number)).touch()
                except OSError:
                    break

    return seed


def remount_writable(stage: Stage) -> None:
    subprocess.run(["mount", "-o", "remount,rw", stage.state], check=True)


def small_reserve(stage: Stage) -> None:
    stage.table("outbox", "keep_free_bytes = 0")


FAULTS = [
    Fault("the file is no TOML", "config", "config.file", "{folder}/axond.toml",
          lambda s: s.config.write_text("[device\n") and None, Stage.write),
    Fault("an unknown key", "config", "config.wrong", "log.levle",
          lambda s: s.table("log", 'levle = "info"'), lambda s: s.table("log", 'level = "info"')),
    Fault("an unknown driver", "config", "config.wrong", "sensors.imu0.driver",
          lambda s: s.table("sensors.imu0", 'driver = "imu.witmotoin"'), with_imu),
    Fault("a wrong value in a drop-in", "config", "config.wrong", "50-site.toml",
          lambda s: drop_in(s, "[outbox]\nmax_bytes = 1\n"), lambda s: drop_in(s, "[outbox]\nmax_bytes = 9999999\n")),
    Fault("a password that is not there", "config", "config.wrong", "uplink.password_file",
          lambda s: s.table("uplink", 'host = "h"\nusername = "d"\npassword_file = "/none"'),
          lambda s: secret(s, 0o600)),
    Fault("a sensor that no pipeline uses", "config", "config.no_pipeline", "{folder}/axond.toml",
          with_imu, pipeline),
    Fault("a model that is not there", "config", "config.model_missing", "pipelines.motion.model",
          lambda s: (with_imu(s), pipeline(s, "activty"))[1], pipeline),
    Fault("a model with another digest", "config", "model.damaged", "{folder}/state/models/mine",
          own_model, whole_model),
    Fault("a model for other sensors", "config", "config.model_misfit", "pipelines.motion.model", misfit, pipeline),
    Fault("a backend that is not here", "accelerators", "accelerators.none", "pipelines.motion.backend",
          only_lava, lambda s: pipeline(s, more='backend = ["lava", "auto"]')),
    Fault("a secret that everybody may read", "permissions", "permissions.secret_open", "{folder}/password",
          lambda s: secret(s, 0o644), lambda s: (s.folder / "password").chmod(0o640)),
    Fault("a state folder that everybody may write", "permissions", "permissions.state_open", "{folder}/state",
          lambda s: s.state.chmod(0o777), lambda s: s.state.chmod(0o750)),
    Fault("metrics for everybody", "permissions", "permissions.http_open", "0.0.0.0:10473",
          lambda s: s.table("http", 'listen = "0.0.0.0:10473"'), lambda s: s.table("http", 'listen = "[::1]:10473"')),
    Fault("a damaged outbox", "outbox", "outbox.damaged", "{folder}/state/outbox.db", damage, recover),
    Fault("a damaged outbox that was set aside", "outbox", "outbox.set_aside", "outbox.db.corrupt-",
          damage_and_recover, remove_asides),
    Fault("an outbox that is nearly full", "outbox", "outbox.nearly_full", "outbox.max_bytes",
          crowd, lambda s: s.table("outbox", "max_bytes = 100000000")),
    Fault("results that wait for days", "outbox", "outbox.backlog", "48.",
          stamp("(strftime('%s', 'now') - 172800) * 1000000"), deliver),
    Fault("results of an unset clock", "outbox", "outbox.old_stamps", "1970-01-01",
          stamp("1000000"), deliver),
    Fault("results of the future", "outbox", "outbox.future", "device.state_dir",
          stamp("(strftime('%s', 'now') + 1000000) * 1000000"), deliver),
    Fault("a full disk", "disk", "disk.full", "{folder}/state", mount("size=2m"), small_reserve),
    Fault("a disk that can only be read", "disk", "disk.read_only", "{folder}/state",
          mount("ro"), remount_writable),
    Fault("a disk without inodes", "disk", "disk.inodes", "{folder}/state", mount("nr_inodes=20"),
          lambda s: [path.unlink() for path in s.state.iterdir()] and None),
]  # fmt: skip

AS_ANOTHER_USER = [
    Fault("a state folder of another user", "permissions", "permissions.state_dir", "{folder}/state",
          foreign_state, give),
    Fault("an outbox of another user", "permissions", "permissions.state_files", "{folder}/state/outbox.db",
          foreign_outbox, give),
    Fault("a secret that the service cannot read", "permissions", "permissions.secret_unreadable", "{folder}/password",
          as_nobody, lambda s: os.chown(s.folder / "password", nobody().uid, -1)),
    Fault("a user who is not in the port's group", "permissions", "permissions.group", "{folder}/imu",
          port_of_a_group, lambda s: setattr(s, "runner", nobody(group()))),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault(stage: Stage, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXOND_LAVA", str(stage.folder / "no-lava"))
    # The other backends take seconds each and are tried in tests of their own.
    monkeypatch.setattr(accelerators, "backends", lambda: ["lava"])
    check(stage, fault)


@pytest.mark.skipif(not ROOT, reason="only root can ask what another user may do")
@pytest.mark.parametrize("fault", AS_ANOTHER_USER, ids=str)
def test_fault_of_another_user(stage: Stage, fault: Fault) -> None:
    check(stage, fault)


def test_every_wrong_table_is_told_and_the_right_ones_are_used(stage: Stage) -> None:
    with_imu(stage)
    stage.table("sensors.mic0", 'driver = "audio.alsa"\ndevice = "hw:0"')
    stage.table("sensors.far0", 'driver = "none.such"')
    stage.table("outbox", "max_bytes = 1")
    stage.table("pipelines.motion", 'sensors = ["imu0"]\nmodel = "activity"')
    stage.table("pipelines.far", 'sensors = ["far0"]\nmodel = "activity"')
    wrong = {finding.where for finding in stage.look("config") if finding.id == "config.wrong"}
    assert wrong == {"sensors.mic0.device", "sensors.far0.driver", "outbox.max_bytes"}
    assert "serial.missing" in stage.ids("serial"), "the sensor that is right is looked at"


def test_rights_are_asked_of_the_kernel(stage: Stage) -> None:
    me = user_of(os.geteuid())
    path = stage.folder / "file"
    path.write_text("x")
    assert me.may(path) and me.may(path, "r") and not (path.chmod(0o600) or me.may(path, "x"))
    if ROOT:
        assert not nobody().may(path, "r")
        os.chown(path, -1, group())
        path.chmod(0o640)
        assert nobody(group()).may(path, "r") and not nobody(group()).may(path, "rw")


def test_who_runs_axond(stage: Stage) -> None:
    """The unit's user with all its groups; also where the agent ended just after it answered."""
    for lines, groups in (
        ("User = nobody\nSupplementaryGroups=dialout\nSupplementaryGroups=audio", {"dialout", "audio"}),
        (
            f"User={nobody().uid}\nSupplementaryGroups=audio\nSupplementaryGroups=\nSupplementaryGroups={group()}",
            {"dialout"},
        ),
    ):
        stage.put("etc/systemd/system/axond.service.d/user.conf", f"[Service]\n{lines}\n")
        for running in (False, True):
            user = runner(stage.state, stage.root, running=running)
            assert user.uid == nobody().uid
            added = {entry.gr_name for entry in getgrall() if entry.gr_gid in user.groups - nobody().groups}
            assert added == groups


def test_an_outbox_without_tables_is_no_riddle(stage: Stage) -> None:
    """As a power cut leaves it that came before the first commit; the agent makes the tables."""
    (stage.state / "outbox.db").touch()
    assert stage.ids("outbox") == {"outbox.format"}


def test_a_damaged_model_says_nothing_of_the_backends(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "backends", lambda: ["reference"])
    own_model(stage)
    assert stage.ids("accelerators") == {"accelerators.usable"}


def test_a_command_stays_one_line_on_a_narrow_terminal() -> None:
    """Else only its first half would be pasted."""
    command = "openssl s_client -connect broker.example:8883 -CAfile /etc/axond/ca.crt"
    out = Console(width=40, file=io.StringIO())
    show(out, [Finding("one.two", "problem", "seen", "where", "do this", (command,))])
    assert isinstance(out.file, io.StringIO) and f"{command}\n" in out.file.getvalue()


def test_without_a_configuration(stage: Stage) -> None:
    stage.config.unlink()
    assert [finding.id for finding in set_up(stage.config, stage.root, named=False).wrong] == ["config.none"]
    assert [finding.id for finding in set_up(stage.config, stage.root).wrong] == ["config.file"]


@pytest.mark.parametrize(
    "text",
    [
        "sensors = 3",
        "[pipelines]\na = 3",
        '[sensors.a]\ndriver = "imu.witmotion"\nport = "a\\u0000b/c"\nrate_hz = 50',
        '[sensors.a]\ndriver = "imu.witmotion"\nport = "no id"\nrate_hz = 50',
        '[device]\nstate_dir = "/etc/passwd"',
        f'[device]\nstate_dir = "/{"x" * 300}"',
        '[uplink]\nhost = "localhost"\nport = 1\nca_file = "/etc"\ncert_file = "/etc/passwd"\nkey_file = "/dev/null"',
        '[pipelines.p]\nsensors = ["nope"]\nmodel = "../../etc"',
        'a = 1\n"{x}" = "{y}"\n[log]\n"{facts}" = "{0}"',
        "\x00",
    ],
)
def test_garbage_is_no_surprise(stage: Stage, text: str) -> None:
    stage.config.write_text(text)
    scene = set_up(stage.config, stage.root)
    found = examine(scene, [check for check in CHECKS if check.topic not in ("accelerators", "broker", "sensors")])
    assert [finding.told() for finding in found if finding.id.endswith((".raised", ".deadline"))] == []
