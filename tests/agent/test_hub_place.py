"""The hub's SQLite file taken from under it: nothing is acknowledged into a file that nobody will read."""

import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.hub import store as hub_store
from agent.hub.books import Mark
from agent.hub.database import MovedError
from agent.hub.retention import Retention
from agent.hub.service import Hub
from agent.hub.store import HubStore
from agent.mqtt import Broker
from agent.wire import wall_us
from tests.agent.test_hub import Peer
from tests.agent.test_hub_store import KEY, arrivals, batch
from tests.brokers import Mosquitto
from tests.conftest import Running, eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture
def store(path: Path) -> Iterator[HubStore]:
    with closing(HubStore.open(path)) as opened:
        yield opened


def backup(path: Path) -> Path:
    copy = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as sink:
        source.backup(sink)
    return copy


def take_away(path: Path) -> Path:
    """As ``mv hub.db* elsewhere`` does it."""
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    for one in path.parent.glob("hub.db*"):
        one.rename(elsewhere / one.name)
    return elsewhere / path.name


def seqs(path: Path) -> list[Any]:
    with closing(HubStore.open_for_reading(path)) as reader:
        return [row["seq"] for row in reader.results("d1", "kw", 10**6)]


def test_a_file_that_was_removed_is_away_until_it_is_back(store: HubStore, path: Path) -> None:
    store.store(arrivals(batch(1, 3)))
    elsewhere = take_away(path)
    for _ in range(2):
        with pytest.raises(MovedError, match="removed"):
            store.store(arrivals(batch(4, 2)))
    assert not path.exists()
    assert seqs(elsewhere) == [1, 2, 3]
    elsewhere.rename(path)
    assert store.store(arrivals(batch(4, 2))).marks == {KEY: Mark(5)}
    assert seqs(path) == [1, 2, 3, 4, 5]


def test_a_file_that_does_not_come_back_is_made_anew(
    store: HubStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.store(arrivals(batch(1, 3)))
    monkeypatch.setattr(hub_store, "RETURN_S", 0.0)
    for one in path.parent.glob("hub.db*"):
        one.unlink()
    with pytest.raises(MovedError):
        store.store(arrivals(batch(4, 2)))
    assert store.store(arrivals(batch(4, 2))).marks == {KEY: Mark(0, ((4, 5),))}
    assert seqs(path) == [4, 5]


def test_a_transaction_during_which_the_file_went_is_none(store: HubStore, path: Path) -> None:
    gone: list[Path] = []
    some = arrivals(batch(1, 3))
    some.batches = _OnceRead(some.batches, lambda: gone.append(take_away(path)))
    with pytest.raises(MovedError):
        store.store(some)
    assert gone


class _OnceRead(list[Any]):
    def __init__(self, items: list[Any], then: Callable[[], None]) -> None:
        super().__init__(items)
        self._then: Callable[[], None] | None = then

    def __iter__(self) -> Iterator[Any]:
        then, self._then = self._then, None
        if then is not None:
            then()
        return super().__iter__()


def test_a_restored_file_is_not_mixed_with_the_log_of_the_old_one(store: HubStore, path: Path) -> None:
    store.store(arrivals(batch(1, 3)))
    copy = backup(path)
    for seq in range(4, 200):
        store.store(arrivals(batch(seq)))
    copy.replace(path)
    with pytest.raises(MovedError, match="replaced"):
        store.store(arrivals(batch(200)))
    assert store.store(arrivals(batch(200))).marks == {KEY: Mark(3, ((200, 200),))}
    assert seqs(path) == [1, 2, 3, 200]


def test_what_was_moved_keeps_all_that_was_acknowledged(store: HubStore, path: Path) -> None:
    for seq in range(1, 200):
        store.store(arrivals(batch(seq)))
    moved = path.with_name("old.db")
    path.rename(moved)  # the log, in which the results are, stays
    with pytest.raises(MovedError):
        store.store(arrivals(batch(200)))
    assert seqs(moved) == list(range(1, 200))


def test_stores_side_by_side_keep_what_they_acknowledge_over_a_restore(store: HubStore, path: Path) -> None:
    with closing(HubStore.open(path)) as other:
        store.store(arrivals(batch(1, 3)))
        other.store(arrivals(batch(4, 3)))
        backup(path).replace(path)
        with pytest.raises(MovedError):
            store.store(arrivals(batch(7, 3)))
        store.store(arrivals(batch(7, 3)))
        with pytest.raises(MovedError):
            other.store(arrivals(batch(10, 3)))
        other.store(arrivals(batch(10, 3)))
        store.store(arrivals(batch(13, 3)))
    assert seqs(path) == list(range(1, 16))


def test_while_another_reads_the_old_file_nothing_is_left_behind(store: HubStore, path: Path) -> None:
    store.store(arrivals(batch(1, 3)))
    copy = path.with_name("backup.db")
    shutil.copy(backup(path), path.with_name("second.db"))
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM batches").fetchall()
        store.store(arrivals(batch(4, 2)))
        copy.replace(path)
        for _ in range(2):
            with pytest.raises(MovedError, match="replaced"):
                store.store(arrivals(batch(6)))
    with pytest.raises(MovedError, match="replaced"):
        store.store(arrivals(batch(6)))
    assert store.store(arrivals(batch(6))).marks == {KEY: Mark(3, ((6, 6),))}


def test_a_file_of_something_else_is_left_alone(store: HubStore, path: Path) -> None:
    copy = path.with_name("copy.db")
    store.store(arrivals(batch(1)))
    shutil.copy(backup(path), copy)
    path.with_name("note.txt").write_text("no database" * 1000)
    path.with_name("note.txt").replace(path)
    with pytest.raises(MovedError, match="replaced"):
        store.store(arrivals(batch(2)))
    for _ in range(2):
        with pytest.raises(MovedError, match="not a database"):
            store.store(arrivals(batch(2)))
    assert path.read_text().startswith("no database")
    copy.replace(path)
    assert store.store(arrivals(batch(2))).marks == {KEY: Mark(2)}


def test_a_hub_that_only_looks_for_old_results_says_it_as_well(
    store: HubStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(Broker("broker", 1883), path)
    hub._retention = Retention(7.0, (), wall_us())
    hub._expire(store)
    assert not caplog.records
    take_away(path)
    hub._expire_at_s = 0.0
    hub._expire(store)
    (record,) = caplog.records
    assert (record.levelname, "the file was removed" in record.getMessage()) == ("WARNING", True)


def test_a_hub_says_that_its_file_is_gone_and_answers_nobody_until_it_is_back(
    broker: Mosquitto, running: Callable[[Any], Running], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent.hub")
    hub = Hub(Broker(broker.host, broker.port), path)
    running(hub)
    assert hub.connected.wait(20)
    device = Peer(broker)
    try:
        device.send_batch(batch(1, 3))
        device.answered(upto=3)
        elsewhere = take_away(path)
        device.send_batch(batch(4, 2))
        eventually(lambda: "was removed" in caplog.text, "a sentence")
        device.poll()
        assert [answer["upto"] for answer in device.answers] == [3]
        elsewhere.rename(path)
        device.answered(upto=5)
    finally:
        device.close()
    said = [r.levelname for r in caplog.records if "was removed" in r.getMessage()]
    assert said == ["WARNING"]
    assert "hub stores again" in caplog.text
    assert seqs(path) == [1, 2, 3, 4, 5]
