"""Device profiles: which board is which, what a profile sets, and that the configuration wins."""

import json
import os
import threading
from pathlib import Path

import pytest

from agent import config
from agent.__main__ import main
from agent.composition import outbox_limits
from agent.outbox import Outbox
from agent.outbox_group import BURST_S, GROUP_S, CommitPace
from agent.outbox_store import OutboxLimits
from agent.profile import PROFILES, detect
from agent.realtime import Scheduling
from agent.record import Priority
from agent.supervisor import Supervisor
from models.failover import Runner
from models.registry import AUTO_ORDER
from tests.conftest import Running, eventually

BOARDS = [
    ("pi", {"proc/device-tree/model": b"Raspberry Pi 4 Model B Rev 1.4\0"}),
    ("pi", {"proc/device-tree/model": b"Raspberry Pi Compute Module 4 Rev 1.0\0"}),
    ("jetson", {"proc/device-tree/model": b"NVIDIA Jetson Orin Nano Developer Kit\0"}),
    ("jetson", {"proc/device-tree/model": b"NVIDIA Orin NX\0", "proc/device-tree/compatible": b"x\0nvidia,tegra234\0"}),
    ("jetson", {"etc/nv_tegra_release": b"# R35 (release)"}),
    ("nuc", {"sys/class/dmi/id/product_name": b"NUC13ANHi7\n"}),
    ("nuc", {"sys/class/dmi/id/product_name": b"ASUS NUC 14 Pro\n"}),
    ("nuc", {"sys/class/dmi/id/product_name": b"\n", "sys/class/dmi/id/board_name": b"NUC8BEB\n"}),
    ("nuc", {"sys/class/dmi/id/product_name": b"Beelink\n", "sys/class/dmi/id/chassis_type": b"35\n"}),
    ("generic", {"sys/class/dmi/id/product_name": b"ThinkPad\n", "sys/class/dmi/id/chassis_type": b"10\n"}),
    ("generic", {"proc/device-tree/model": b"BeagleBone Black\0"}),
    ("generic", {"proc/device-tree/model": b"\xff\xfe\0"}),
    ("generic", {}),
]


@pytest.mark.parametrize(("name", "files"), BOARDS)
def test_boards_are_known_by_what_their_firmware_says(name: str, files: dict[str, bytes], tmp_path: Path) -> None:
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    found = detect(tmp_path)
    assert found.name == name
    assert found.reason
    assert found.outbox == PROFILES[name].outbox


def test_every_profile_tries_every_backend_and_sets_valid_keys() -> None:
    assert set(PROFILES) == {"jetson", "nuc", "pi", "generic"}
    for profile in PROFILES.values():
        assert sorted(profile.backends) == sorted(AUTO_ORDER)
        config.OutboxTable.model_validate(dict(profile.outbox))
    assert PROFILES["generic"].outbox == {
        key: config.OutboxTable.model_fields[key].default for key in PROFILES["generic"].outbox
    }


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "axond.toml"
    path.write_text(f'[device]\nstate_dir = "{tmp_path}/state"\n' + text)
    return config.load(path)


def test_the_configuration_wins_key_by_key(tmp_path: Path) -> None:
    settings = load(tmp_path, 'profile = "pi"\n[outbox]\nmax_bytes = 2097152\n')
    assert settings.profile.name == "pi"
    assert settings.outbox.max_bytes == 2097152
    assert settings.outbox.keep_free_bytes == PROFILES["pi"].outbox["keep_free_bytes"]
    limits = outbox_limits(settings.outbox)
    assert (limits.max_bytes, limits.commit_interval_s) == (2097152, 1.0)
    # What a profile has as its default may be said all the same, and holds.
    default = load(tmp_path, f'profile = "pi"\n[outbox]\ncommit_interval_s = {GROUP_S}\n')
    assert default.outbox.commit_interval_s == GROUP_S
    drop_in = tmp_path / "axond.toml.d" / "50-disk.toml"
    drop_in.parent.mkdir()
    drop_in.write_text("[outbox]\nmax_bytes = 1048576\n")
    assert load(tmp_path, 'profile = "pi"\n').outbox.max_bytes == 1048576


def test_an_unknown_profile_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "axond.toml").write_text('[device]\nprofile = "toaster"\n')
    assert main(["check", "--config", str(tmp_path / "axond.toml")]) == 78
    said = capfd.readouterr().err
    assert "device.profile" in said and "'jetson', 'nuc', 'pi' or 'generic'" in said


def test_check_says_what_holds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(tmp_path, 'profile = "pi"\n[outbox]\nmax_bytes = 2097152\n')
    assert main(["check", "--config", str(tmp_path / "axond.toml")]) == 0
    said = capfd.readouterr().out
    assert "profile pi" in said and "outbox of 2 MiB, 256 MiB kept free, written every 1 s" in said
    assert "backend auto is akida, tflite, onnx" in said
    assert main(["check", "--json", "--config", str(tmp_path / "axond.toml")]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["profile"]["name"] == "pi"
    assert facts["outbox"]["max_bytes"] == 2097152


def test_auto_is_in_the_order_of_the_profile_and_a_named_kind_is_itself() -> None:
    assert Runner("auto", auto=PROFILES["pi"].backends).kind == "akida"
    assert Runner(["auto"], auto=("tflite", "onnx")).kind == "tflite"
    assert Runner(["onnx", "auto"], auto=("tflite", "onnx")).kind == "onnx"
    assert Runner("auto").kind == AUTO_ORDER[0]


def test_a_longer_interval_writes_less_often_and_a_lone_result_at_once() -> None:
    usual, card = CommitPace(), CommitPace(1.0)
    commits = {id(pace): 0 for pace in (usual, card)}
    for tick in range(1000):
        for pace in (usual, card):
            if pace.due_s(tick / 100) <= 0:
                pace.committed(tick / 100)
                commits[id(pace)] += 1
    assert commits[id(usual)] == pytest.approx((10 + BURST_S) / GROUP_S, abs=2)
    assert commits[id(card)] == pytest.approx(11, abs=1)
    assert card.due_s(1000.0) <= 0


def test_an_alarm_does_not_wait_for_a_long_interval(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", boot="b1", limits=OutboxLimits(commit_interval_s=10))
    run = Running(outbox)
    eventually(outbox.opened.is_set, "open")
    outbox.put("kw", {"t_ns": 0})
    eventually(lambda: not outbox.unwritten, "the first is written at once", 2.0)
    outbox.put("kw", {"t_ns": 1})
    outbox.put("kw", {"t_ns": 2}, priority=Priority.ALARM)
    eventually(lambda: not outbox.unwritten, "the alarm is, and with it what waited", 2.0)
    run.stop()


def test_a_result_after_many_alarms_waits_no_longer_than_any() -> None:
    """Each alarm hurries a commit, and so do 64 results; the next is delayed by one interval."""
    pace = CommitPace()
    for tick in range(700):
        pace.committed(tick / 200)
    assert 0 < pace.due_s(700 / 200) <= GROUP_S


class Noted:
    """A worker that notes where it runs."""

    critical = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.cores: set[int] = set()
        self.policy = (0, 0)

    def run(self, stop: threading.Event, beat: object) -> None:
        self.cores = set(os.sched_getaffinity(0))
        self.policy = (os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.getpriority(os.PRIO_PROCESS, 0))


def test_cores_are_divided_from_four_on() -> None:
    four = Scheduling(PROFILES["pi"], {0, 1, 2, 3})
    assert (four.data_cores, four.other_cores) == ({1, 2, 3}, {0})
    eight = Scheduling(PROFILES["nuc"], set(range(8, 16)))
    assert (eight.data_cores, eight.other_cores) == (set(range(10, 16)), {8, 9})
    for few in (Scheduling(PROFILES["pi"], {0, 1, 2}), Scheduling(PROFILES["generic"], set(range(8)))):
        assert (few.data_cores, few.other_cores) == (frozenset(), frozenset())


def test_threads_get_what_the_system_gives_and_nothing_fails() -> None:
    mine = os.sched_getaffinity(0)
    # Cores that this machine does not have are refused by the kernel, and nobody minds.
    scheduling = Scheduling(PROFILES["pi"], {4000, 4001, 4002, 4003})
    supervisor = Supervisor(scheduling.place)
    workers = [Noted("capture:mic0"), Noted("pipeline:words"), Noted("uplink")]
    for worker in workers:
        supervisor.start(worker)
    eventually(lambda: all(worker.cores for worker in workers), "they ran")
    capture, pipeline, uplink = workers
    reached = scheduling.facts()["priorities"]
    assert isinstance(reached, dict) and set(reached) == {"capture", "pipeline"}
    if reached["capture"].startswith("SCHED_RR"):
        assert capture.policy[0] == os.SCHED_RR
    if reached["pipeline"].startswith("nice"):
        assert pipeline.policy[1] == -5
    assert uplink.policy == (os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))
    assert {frozenset(worker.cores) for worker in workers} == {frozenset(mine)}
    assert os.sched_getaffinity(0) == mine


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core only")
def test_sensors_and_others_run_on_their_cores() -> None:
    first, *others = sorted(os.sched_getaffinity(0))
    # The kernel ignores cores that are not there as long as one of them is.
    scheduling = Scheduling(PROFILES["pi"], {first, *others[:3], *range(4000, 4003 - len(others[:3]))})
    supervisor = Supervisor(scheduling.place)
    workers = [Noted("capture:mic0"), Noted("outbox")]
    for worker in workers:
        supervisor.start(worker)
    eventually(lambda: all(worker.cores for worker in workers), "they ran")
    assert workers[0].cores == set(others[:3])
    assert workers[1].cores == {first}


def test_status_shows_the_profile(tmp_path: Path) -> None:
    from agent.app import App
    from agent.snapshot import snapshot

    app = App(load(tmp_path, 'profile = "pi"\n'))
    facts = snapshot(app._parts)["profile"]
    assert facts["name"] == "pi"
    assert set(facts["scheduling"]) == {"data_cores", "other_cores", "priorities"}
    json.dumps(facts)
