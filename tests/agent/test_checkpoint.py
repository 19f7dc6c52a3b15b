"""The file that a stream goes on from."""

from pathlib import Path

import numpy as np
import pytest

from agent import checkpoint
from agent.checkpoint import Checkpoint
from models.bundle import Bundle
from tests.models.networks import random_network, write_bundle

STATE = {"end_ns": np.array([5]), "state0": np.arange(4, dtype=np.int32)}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "made", random_network(np.random.default_rng(1)))


def test_what_was_kept_is_there_after_a_restart(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "state" / "streams" / "p.npz"
    assert Checkpoint(path, bundle).load() is None
    Checkpoint(path, bundle).finish(dict(STATE))
    found = Checkpoint(path, bundle).load()
    assert found is not None
    assert {name: array.tolist() for name, array in found.items()} == {"end_ns": [5], "state0": [0, 1, 2, 3]}
    assert [p.name for p in path.parent.iterdir()] == ["p.npz"]


def test_another_bundle_or_boot_begins_from_rest(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.npz"
    Checkpoint(path, bundle).finish(dict(STATE))
    other = write_bundle(tmp_path / "other", random_network(np.random.default_rng(2)))
    assert Checkpoint(path, other).load() is None
    boot = tmp_path / "boot_id"
    boot.write_text("another boot")
    monkeypatch.setattr(checkpoint, "BOOT_ID", boot)
    assert Checkpoint(path, bundle).load() is None


def test_a_damaged_file_is_said_and_begins_from_rest(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.npz"
    Checkpoint(path, bundle).finish(dict(STATE))
    path.write_bytes(path.read_bytes()[:-30])
    assert Checkpoint(path, bundle).load() is None
    assert "starts from rest" in caplog.text


def test_it_is_written_in_intervals_and_not_by_the_caller(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.npz"
    early = Checkpoint(path, bundle)
    early.offer(lambda: dict(STATE))
    assert not path.exists()
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.0)
    due = Checkpoint(path, bundle)
    due.offer(lambda: dict(STATE))
    due.finish({**STATE, "end_ns": np.array([9])})
    found = due.load()
    assert found is not None
    assert found["end_ns"].tolist() == [9]


def test_a_full_or_forbidden_disk_stops_nothing(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    kept = Checkpoint(blocked / "p.npz", bundle)
    kept.finish(dict(STATE))
    kept.finish(dict(STATE))
    assert caplog.text.count("cannot be kept") == 1
