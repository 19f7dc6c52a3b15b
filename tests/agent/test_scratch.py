"""Folders in which something is prepared: gone at the end, and gone later when that end was a SIGKILL."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.backup.scratch import INSIDE, LOCK, PREFIX, clean, scratch
from agent.cli import extras
from tests.agent.sites import Site

MADE = 'imu0={driver="synthetic", signal="motion", rate_hz=50}'
HOLD = """
import sys
from pathlib import Path
from agent.backup.scratch import scratch
with scratch(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("in", flush=True)
    sys.stdin.read()
"""
STOP_AT = """
import sys
from importlib import import_module
from agent.__main__ import main
def stop(*arguments, **options):
    print("in", flush=True)
    sys.stdin.read()
setattr(import_module(sys.argv[1]), sys.argv[2], stop)
sys.exit(main(sys.argv[3:]))
"""
"""Runs a command as far as the function of that module."""


def left_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))


@contextmanager
def halfway(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has come to the middle; killed at the end of the block."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "in\n"
            yield child
        finally:
            child.kill()


def test_of_one_that_lives_nothing_is_taken_and_of_a_dead_one_everything(tmp_path: Path) -> None:
    with halfway(HOLD, str(tmp_path)):
        (other,) = left_in(tmp_path)
        with scratch(tmp_path) as folder:
            assert (folder.stat().st_mode & 0o777, list(folder.iterdir())) == (0o700, [])
            assert len(left_in(tmp_path)) == 2
        assert left_in(tmp_path) == [other]
        assert (other / INSIDE / "half").exists()
    assert left_in(tmp_path) == [other]
    clean(tmp_path)
    assert left_in(tmp_path) == []


def test_what_is_not_surely_ours_stays(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / LOCK).write_text("")
    (tmp_path / f"{PREFIX}linked__").symlink_to(victim)
    (tmp_path / f"{PREFIX}afile___").write_text("a file")
    (tmp_path / f"{PREFIX}person's own").mkdir()
    without_mark = tmp_path / f"{PREFIX}nomark__"
    without_mark.mkdir()
    (without_mark / "work").write_text("mine")
    with_link = tmp_path / f"{PREFIX}marklink"
    with_link.mkdir()
    (with_link / LOCK).symlink_to(victim / LOCK)
    half_made = tmp_path / f"{PREFIX}halfmade"
    half_made.mkdir()
    before = sorted(tmp_path.rglob("*"))
    clean(tmp_path)
    assert sorted(tmp_path.rglob("*")) == [path for path in before if path != half_made]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder another user's")
def test_another_user_s_stays(tmp_path: Path) -> None:
    with halfway(HOLD, str(tmp_path)):
        (other,) = left_in(tmp_path)
    os.chown(other, 65534, 65534)
    clean(tmp_path)
    assert left_in(tmp_path) == [other]


def test_an_error_within_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), scratch(tmp_path) as folder:
        (folder / "half").write_text("")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_backup_leaves_nothing_for_ever(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "out" / "b.tar.zst"
    target.parent.mkdir()
    arguments = ("backup", str(target), "--config", str(site.config))
    with halfway(STOP_AT, "agent.backup.make", "verify", *arguments):
        pass
    assert len(list(target.parent.iterdir())) == 1
    assert site.run("backup", str(target)) == 0
    assert list(target.parent.iterdir()) == [target]


def test_a_killed_restore_leaves_nothing_for_ever(site: Site, archive: Path) -> None:
    arguments = ("restore", str(archive), "--state-dir", str(site.state), "--config", str(site.config))
    with halfway(STOP_AT, "agent.backup.restore", "replace_config", *arguments):
        pass
    assert [len(left_in(folder)) for folder in (site.etc, site.state)] == [1, 1]
    assert site.restore(archive) == 0
    hidden = [path for folder in (site.etc, site.state) for path in folder.iterdir() if path.name.startswith(".")]
    assert hidden == []


def test_a_killed_setup_leaves_no_password_for_ever(site: Site) -> None:
    setup = ("setup", "--yes", "--overwrite", "--sensor", MADE, "--no-broker")
    with halfway(STOP_AT, "agent.cli.setup", "examine", *setup, "--config", str(site.config)):
        pass
    assert len(left_in(site.etc)) == 1
    assert site.run(*setup) == 0
    assert left_in(site.etc) == []


def test_a_killed_extra_leaves_nothing_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with halfway(HOLD, str(tmp_path)):
        pass
    monkeypatch.setattr(extras, "_missing", lambda name, report: ["x==1"])
    monkeypatch.setattr(extras, "_pip", lambda *arguments: None)
    extras._into_folder("locate", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["locate"]
