"""Backup and restore where the power went while the agent rebuilt a damaged outbox."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import outbox_file
from agent.outbox import Outbox
from agent.outbox_file import finish, new_path
from tests.agent.sites import Site, fill
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]


@pytest.fixture
def power_cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, bool], None]:
    """The outbox has been rebuilt, its content whole, and the power goes before, or while, it takes its place."""

    def cut(db: Path, half_way: bool) -> None:
        with monkeypatch.context() as before_the_exchange:
            before_the_exchange.setattr(outbox_file, "take_over", lambda path, max_bytes: None)
            shutil.copy(db, new_path(db))
            finish(db, 1 << 30)
        db.write_bytes(b"damaged" * 1000)
        if half_way:
            db.rename(db.with_name("outbox.db.corrupt-1"))

    return cut


@pytest.mark.parametrize("half_way", [False, True])
def test_what_was_restored_is_not_displaced_by_what_was_rebuilt(
    site: Site, archive: Path, running: Start, power_cut: Callable[[Path, bool], None], half_way: bool, capfd: Any
) -> None:
    db = site.state / "outbox.db"
    shutil.rmtree(site.state)
    fill(site.state, "b7", 4, delivered=1)
    power_cut(db, half_way)
    assert site.restore(archive) == 0
    assert "its rebuilding was interrupted" in capfd.readouterr().out
    outbox = Outbox(db, boot="b8")
    running(outbox)
    eventually(outbox.opened.is_set, "open")
    given_out = {(record.boot, record.seq0) for record in outbox.lease(20, 1.0)}
    assert given_out == {("b1", 3), ("b1", 4), ("b1", 5), ("b7", 2), ("b7", 3), ("b7", 4)}
    assert db.with_name("outbox.db.corrupt-1").read_bytes().startswith(b"damaged")


def test_another_device_s_rebuilt_results_are_seen(
    site: Site, archive: Path, power_cut: Callable[[Path, bool], None], capfd: Any
) -> None:
    power_cut(site.state / "outbox.db", True)
    site.config.write_text(f'[device]\nstate_dir = "{site.state}"\n')
    assert site.restore(archive, "--as-new-device", "d2") == 1
    assert "holds 3 results of device" in capfd.readouterr().err
    assert sum(site.pending().values()) == 3


def test_a_backup_without_what_was_rebuilt_is_not_made(
    site: Site, tmp_path: Path, power_cut: Callable[[Path, bool], None], capfd: Any
) -> None:
    power_cut(site.state / "outbox.db", True)
    before = sorted(site.state.iterdir())
    assert site.run("backup", str(tmp_path / "b.tar.zst")) == 1
    assert "start the agent, and back up again" in capfd.readouterr().err
    assert sorted(tmp_path.iterdir()) == [site.etc, site.state]
    assert sorted(site.state.iterdir()) == before, "a backup changes nothing"
