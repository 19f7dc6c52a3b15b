"""Files that commands write: whole or not at all, and never in the place of what is no file."""

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from agent.__main__ import main
from agent.cli.command import CommandError, write_whole
from tests.agent.test_locate_command import recordings


@contextmanager
def small_disk(most_bytes: int) -> Iterator[None]:
    """No file may become larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_link_stays_one_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_what_is_no_file_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for out, complaint in ((tmp_path / "pipe", "no regular file"), (tmp_path / "none" / "x", "there is no folder")):
        with pytest.raises(CommandError, match=complaint):
            write_whole(out, b"new")
        assert main(["model", "report", "activity", "-o", str(out)]) == 1
        assert complaint in capsys.readouterr().err
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(CommandError, match="round: cannot be written"):
        write_whole(tmp_path / "round", b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert main(["model", "export", "activity", "--target", "npz", "-o", str(tmp_path / "pipe")]) == 1
    assert "exists" in capsys.readouterr().err


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = recordings(tmp_path / "echoes"), tmp_path / "classes.json"
    assert main(["locate", "learn", "--data", str(folder), "-o", str(out)]) == 0
    before = out.read_bytes()
    with small_disk(1000):
        assert main(["locate", "learn", "--data", str(folder), "-o", str(out)]) == 1
        assert f"{out}: cannot be written (File too large)" in capsys.readouterr().err
        assert main(["model", "export", "activity", "--target", "npz", "-o", str(tmp_path / "w.npz")]) == 1
        assert "w.npz: cannot be written (File too large)" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.json", "echoes"]


def test_a_damaged_recording_among_the_echoes_is_no_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recordings(tmp_path / "echoes")
    (folder / "wall" / "x.npz").write_bytes(np.random.default_rng(0).bytes(100))
    assert main(["locate", "learn", "--data", str(folder), "-o", str(tmp_path / "c.json")]) == 1
    assert "x.npz" in capsys.readouterr().err
