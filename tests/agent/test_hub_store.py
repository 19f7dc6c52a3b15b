"""The hub's store on SQLite and on PostgreSQL: each number once, in any order, all of a group or nothing."""

import ctypes
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Barrier, Thread

import pytest
from sqlalchemy.exc import IntegrityError, InternalError

from agent import wire
from agent.errors import ConfigError
from agent.hub import ranges
from agent.hub.alarms import QUIET_US, Report
from agent.hub.books import Alarm, Difference, Mark
from agent.hub.database import AWAY, Target
from agent.hub.store import TOO_SCATTERED, Arrivals, HubStore
from tests.databases import Postgres

KEY = ("d1", "b1", "kw")


def batch(seq0: int, count: int = 1, boot: str = "b1") -> bytes:
    rows: list[tuple[int, wire.Row]] = [(seq, {"n": seq}) for seq in range(seq0, seq0 + count)]
    return wire.encode(boot, "kw", seq0, rows, wire.SystemClock())


def gap(seq0: int, seq1: int, cause: str = "quota") -> bytes:
    return wire.encode_gap("b1", "kw", seq0, seq1, cause)


def arrivals(*payloads: bytes, device: str = "d1") -> Arrivals:
    return Arrivals(batches=[(device, wire.decode(payload), payload) for payload in payloads])


@pytest.fixture
def store(target: Target) -> Iterator[HubStore]:
    with closing(HubStore.open(target)) as opened:
        yield opened


def told(produced: int, delivered: int, pending: int = 0, evicted: int = 0) -> dict[str, int]:
    return {"produced": produced, "delivered": delivered, "pending": pending, "evicted": evicted, "refused": 0}


def test_overlaps_are_cut_wherever_they_lie(store: HubStore) -> None:
    outcome = store.store(arrivals(batch(1, 3), batch(6, 2), batch(2, 9), gap(5, 20), batch(1, 2)))
    assert outcome.marks == {KEY: Mark(20)}
    assert [row["seq"] for row in store.results("d1", "kw")] == list(range(1, 11))
    assert store.gaps("d1") == [("b1", "kw", 11, 20, "quota")]
    (account,) = store.ledger()
    assert (account.stored, account.missing, account.duplicates, account.problem) == (10, 10, 6, None)


def test_whatever_the_order_each_number_is_there_once(store: HubStore) -> None:
    dice = random.Random(7)
    spans = [(seq0, dice.randint(7, 20)) for seq0 in range(1, 400, 7)]
    sent = [gap(a, a + n - 1) if dice.random() < 0.2 else batch(a, n) for a, n in spans for _ in range(2)]
    dice.shuffle(sent)
    for begin in range(0, len(sent), 9):
        outcome = store.store(arrivals(*sent[begin : begin + 9]))
        (account,) = store.ledger()
        assert account.problem is None
        assert outcome.marks[KEY].upto == account.upto
    seqs = Counter(row["seq"] for row in store.results("d1", "kw", 10**6))
    lacking = {n for _, _, first, last, _ in store.gaps("d1") for n in range(first, last + 1)}
    assert set(seqs.values()) == {1}
    assert sorted([*seqs, *lacking]) == list(range(1, account.upto + 1))
    assert [row["n"] for row in store.results("d1", "kw", 10**6)] == sorted(seqs)


def test_a_group_is_stored_whole_or_not_at_all(store: HubStore) -> None:
    bad = arrivals(batch(1, 3), gap(7, 9))
    bad.documents["d1", "status"] = ("b1", None)  # type: ignore[assignment]  # what the database refuses
    with pytest.raises(IntegrityError):
        store.store(bad)
    assert (store.ledger(), store.gaps("d1"), store.devices()) == ([], [], [])
    assert store.store(arrivals(batch(1, 3))).marks == {KEY: Mark(3)}


def test_an_answer_names_the_lowest_ranges_only(store: HubStore) -> None:
    outcome = store.store(arrivals(*(batch(seq) for seq in range(3, 203, 2))))
    mark = outcome.marks[KEY]
    assert (mark.upto, mark.have) == (0, tuple((seq, seq) for seq in range(3, 131, 2)))
    assert store.ledger()[0].ahead == 100


def test_a_batch_too_far_from_the_rest_is_counted_and_not_answered(store: HubStore) -> None:
    full = [gap(seq, seq) for seq in range(3, 3 + 2 * ranges.MAX_RANGES, 2)]
    store.store(arrivals(*full))
    for first in (True, False):
        outcome = store.store(arrivals(batch(10**6)))
        assert (outcome.marks, outcome.scattered) == ({}, {("d1", TOO_SCATTERED)})
        assert outcome.first_rejected == ({("d1", TOO_SCATTERED)} if first else set())
    assert store.rejected() == {("d1", TOO_SCATTERED): 2}
    assert store.store(arrivals(gap(1, 2))).marks[KEY].upto == 3


def store_for_sure(store: HubStore, some: Arrivals) -> None:
    """As the hub does it: three that write without a pause keep one out for longer than it waits."""
    for _ in range(20):
        try:
            store.store(some)
        except AWAY:
            continue
        return
    pytest.fail("away for too long")


def test_several_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Without waiting for its turn to WAL one of 20 was refused."""
    opened = []

    def work(path: Path, together: Barrier) -> None:
        together.wait(20)
        with closing(HubStore.open(path)):
            opened.append(path)

    for n in range(30):
        together = Barrier(4)
        threads = [Thread(target=work, args=(tmp_path / f"{n}.db", together)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(opened) == 120


def test_stores_side_by_side_keep_each_number_once(target: Target) -> None:
    together = Barrier(3)
    payloads = [batch(seq0, 10) for seq0 in range(1, 300, 5)]

    def work(seed: int) -> None:
        mine = random.Random(seed).sample(payloads, len(payloads))
        with closing(HubStore.open(target)) as own:
            together.wait(20)
            for payload in mine:
                store_for_sure(own, arrivals(payload, device=f"d{seed % 2}"))
                store_for_sure(own, arrivals(payload, device="shared"))

    threads = [Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    with closing(HubStore.open_for_reading(target)) as reader:
        assert {
            line.device: (line.upto, line.stored, line.ahead, line.problem) for line in reader.ledger()
        } == dict.fromkeys(("d0", "d1", "shared"), (305, 305, 0, None))
        assert [row["seq"] for row in reader.results("shared", "kw", 10**6)] == list(range(1, 306))


def test_books_that_differ_are_an_alarm_until_they_agree(store: HubStore) -> None:
    def report(ledger: dict[str, int]) -> list[Alarm]:
        return store.store(Arrivals(told={KEY: ledger}, reports={"d1": Report("b1", idle=True)})).alarms

    store.store(arrivals(batch(1, 3)))
    assert report(told(5, 3, pending=2)) == []
    assert report(told(5, 4, pending=1)) == [Alarm(KEY, "the device delivered 4, stored are 3")]
    assert report(told(6, 5, pending=1)) == [], "said once"
    assert store.ledger()[0].alarm == Difference("the device delivered 5, stored are 3", 2)
    assert store.devices()[0].alarms == 1
    assert report(told(6, 3, pending=1)) == []
    assert store.ledger()[0].problem == "the device produced 6 and accounts for 4"
    assert report(told(6, 3, pending=3)) == [Alarm(KEY, "")]
    assert (store.ledger()[0].problem, store.devices()[0].alarms) == (None, 0)
    assert report(told(7, 7)) == [Alarm(KEY, "the device delivered 7, stored are 3")]


def test_results_of_an_ended_boot_that_never_come_are_an_alarm(
    store: HubStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def next_boot(idle: bool) -> list[Alarm]:
        later = Arrivals(told={("d1", "b2", "kw"): told(1, 0, pending=1)}, reports={"d1": Report("b2", idle)})
        return store.store(later).alarms

    store.store(arrivals(batch(1, 3)))
    for produced in (5, 6):  # of what it told last nobody knows whether it was written down
        store.store(Arrivals(told={KEY: told(produced, 3, pending=produced - 3)}, reports={"d1": Report("b1", True)}))
    assert next_boot(idle=True) == [], "it may still come"
    monkeypatch.setattr("agent.hub.store.wall_us", lambda: wire.wall_us() + 2 * QUIET_US)
    assert next_boot(idle=False) == [], "the device has more"
    assert next_boot(idle=True) == [Alarm(KEY, "the boot has ended and 2 of its 5 results never came")]
    assert next_boot(idle=True) == []
    never = Difference("the boot has ended and 2 of its 5 results never came", 2)
    assert [line.alarm for line in store.ledger("d1")] == [never, None]
    store.store(arrivals(gap(4, 5, "damaged")))
    assert next_boot(idle=True) == [Alarm(KEY, "")]


@pytest.mark.parametrize(("second", "alarms"), [("again", 0), ("a minute later", 1)])
def test_metrics_that_come_twice_say_nothing_more(
    store: HubStore, monkeypatch: pytest.MonkeyPatch, second: str, alarms: int
) -> None:
    """A hub that dies before it answers hears the same message again; an idle device says the same in another one."""
    store.store(arrivals(batch(1, 3)))
    for text in ("again", second):
        metrics = Arrivals(told={KEY: told(5, 3, pending=2)}, reports={"d1": Report("b1", idle=False)})
        metrics.documents["d1", "metrics"] = "b1", text
        store.store(metrics)
    monkeypatch.setattr("agent.hub.store.wall_us", lambda: wire.wall_us() + 2 * QUIET_US)
    later = Arrivals(told={("d1", "b2", "kw"): told(0, 0)}, reports={"d1": Report("b2", idle=True)})
    assert len(store.store(later).alarms) == alarms


def test_old_results_expire_and_stay_accounted_for(store: HubStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now_us = wire.wall_us()
    monkeypatch.setattr("agent.hub.store.wall_us", lambda: now_us - 3_000_000)
    store.store(arrivals(batch(1, 3), batch(4, 3), batch(9, 2)))
    monkeypatch.setattr("agent.hub.store.wall_us", lambda: now_us)
    store.store(arrivals(batch(7, 2), batch(11, 1)))
    assert [store.expire(now_us - 1_000_000, 2) for _ in range(3)] == [2, 1, 0]
    (account,) = store.ledger()
    assert (account.stored, account.expired, account.upto, account.problem) == (11, 8, 11, None)
    assert [row["seq"] for row in store.results("d1", "kw")] == [7, 8, 11]
    assert store.store(arrivals(batch(1, 3))).marks == {KEY: Mark(11)}, "what has expired is a duplicate, too"
    assert [row["seq"] for row in store.results("d1", "kw")] == [7, 8, 11]


def test_accounts_of_ended_boots_go_once_nothing_of_them_is_kept(
    store: HubStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that starts again and again would leave one per start for ever."""
    for at_us, boot in ((1000, "b1"), (2000, "b2"), (3000, "b3"), (4000, "b4")):
        monkeypatch.setattr("agent.hub.store.wall_us", lambda at_us=at_us: at_us)
        store.store(arrivals(batch(1, 2, boot)))
    store.store(arrivals(gap(3, 4)))
    store.store(Arrivals(told={("d1", "b2", "kw"): told(5, 5)}, reports={"d1": Report("b2", idle=True)}))
    assert store.forget(9000, 10) == 0, "all is still there"
    assert store.expire(9000, 10) == 4
    assert store.forget(3500, 10) == 0, "b1 and b2 had news since then, the successor of b3 is too young"
    assert store.forget(4500, 1) == 1
    assert store.forget(4500, 10) == 1
    assert [line.boot for line in store.ledger()] == ["b2", "b4"], "an alarm rings for b2, b4 is the newest"
    assert store.gaps("d1") == []


def test_the_newest_boot_is_never_forgotten_though_its_streams_began_one_after_the_other(
    store: HubStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at_us, stream in ((1000, "kw"), (2000, "vad")):
        monkeypatch.setattr("agent.hub.store.wall_us", lambda at_us=at_us: at_us)
        payload = wire.encode("b1", stream, 1, [(0, {"n": 1})], wire.SystemClock())
        store.store(arrivals(payload))
    assert (store.expire(9000, 10), store.forget(9000, 10)) == (2, 0)


def test_results_can_be_asked_for_by_the_time_of_arrival(store: HubStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for at_us, boot in ((1000, "zz"), (2000, "b1"), (3000, "aa")):
        monkeypatch.setattr("agent.hub.store.wall_us", lambda at_us=at_us: at_us)
        store.store(arrivals(batch(1, 2, boot)))
    assert [row["boot"] for row in store.results("d1", "kw")] == ["zz", "zz", "b1", "b1", "aa", "aa"]
    found = store.results("d1", "kw", since_us=2000, until_us=3000)
    assert [(row["boot"], row["seq"]) for row in found] == [("b1", 1), ("b1", 2)]


VERSION_1 = """
CREATE TABLE streams (device TEXT NOT NULL, boot TEXT NOT NULL, stream TEXT NOT NULL, upto INTEGER NOT NULL,
    stored INTEGER NOT NULL, missing INTEGER NOT NULL, duplicates INTEGER NOT NULL, first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL, PRIMARY KEY (device, boot, stream)) WITHOUT ROWID;
CREATE TABLE batches (id INTEGER PRIMARY KEY, device TEXT NOT NULL, boot TEXT NOT NULL, stream TEXT NOT NULL,
    seq0 INTEGER NOT NULL, seq1 INTEGER NOT NULL, received_us INTEGER NOT NULL, payload BLOB NOT NULL,
    UNIQUE (device, boot, stream, seq0));
CREATE TABLE gaps (device TEXT NOT NULL, boot TEXT NOT NULL, stream TEXT NOT NULL, seq0 INTEGER NOT NULL,
    seq1 INTEGER NOT NULL, cause TEXT NOT NULL, received_us INTEGER NOT NULL,
    PRIMARY KEY (device, boot, stream, seq0)) WITHOUT ROWID;
CREATE TABLE documents (device TEXT NOT NULL, kind TEXT NOT NULL, boot TEXT NOT NULL, body TEXT NOT NULL,
    received_us INTEGER NOT NULL, PRIMARY KEY (device, kind)) WITHOUT ROWID;
CREATE TABLE rejected (device TEXT NOT NULL, kind TEXT NOT NULL, messages INTEGER NOT NULL, last_us INTEGER NOT NULL,
    PRIMARY KEY (device, kind)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def test_a_file_of_version_1_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    metrics = '{"ledger_kw_produced":9,"ledger_kw_delivered":5,"ledger_kw_pending":4,"up_s":3}'
    with closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_1)
        old.execute("INSERT INTO streams VALUES ('d1', 'b1', 'kw', 8, 5, 3, 2, 10, 20)")
        row = (
            "INSERT INTO batches (device, boot, stream, seq0, seq1, received_us, payload) VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        old.execute(row, (*KEY, 1, 3, 11, batch(1, 3)))
        old.execute(row, (*KEY, 4, 5, 12, batch(2, 4)))
        old.execute("INSERT INTO gaps VALUES ('d1', 'b1', 'kw', 6, 8, 'quota', 13)")
        old.execute("INSERT INTO documents VALUES ('d1', 'metrics', 'b1', ?, 14)", (metrics,))
        old.execute("INSERT INTO rejected VALUES ('d1', 'bad batch', 4, 15)")
        old.commit()
    with pytest.raises(FileNotFoundError, match="older axond"):
        HubStore.open_for_reading(path)
    for _ in range(2):
        HubStore.open(path).close()
    with closing(HubStore.open(path)) as store:
        (account,) = store.ledger()
        assert (account.upto, account.stored, account.missing, account.duplicates) == (8, 5, 3, 2)
        assert account.reported == {"produced": 9, "delivered": 5, "pending": 4}
        assert account.problem is None
        assert [row["n"] for row in store.results("d1", "kw")] == [1, 2, 3, 4, 5]
        assert store.gaps("d1") == [("b1", "kw", 6, 8, "quota")]
        assert store.rejected() == {("d1", "bad batch"): 4}
        assert store.devices()[0].metrics["up_s"] == 3
        assert store.store(arrivals(batch(1, 3), batch(9, 1), batch(12, 1))).marks == {KEY: Mark(9, ((12, 12),))}
    with closing(sqlite3.connect(path)) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (2,), "an axond of before leaves it alone"


def test_what_is_no_store_of_ours_is_left_alone(target: Target) -> None:
    with ExitStack() as stack:
        store = stack.enter_context(closing(HubStore.open(target)))
        with store._engine.begin() as connection:
            connection.exec_driver_sql("UPDATE schema_version SET version = 3")
    with pytest.raises(ConfigError, match="format 3, expected 2"):
        HubStore.open(target)
    with pytest.raises(ConfigError, match="format 3, expected 2"):
        HubStore.open_for_reading(target)


def test_tables_of_something_else_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as shop:
        shop.execute("CREATE TABLE batches (number INTEGER)")
    with pytest.raises(ConfigError, match="tables of something else: batches"):
        HubStore.open(path)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://host/db", "begins with postgresql://"),
        ("postgresql://user:secret@host:port/db", "cannot be read"),
        ("sqlite:///x.db", "expected a file"),
        ("postgresql+asyncpg://user:secret@host/db", "begins with postgresql://"),
    ],
)
def test_a_database_that_cannot_be_is_a_sentence(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        HubStore.open(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_became_read_only_is_left_for_the_one_that_is_not(postgres: Postgres) -> None:
    with closing(HubStore.open(postgres.create())) as store:
        with store._engine.begin() as connection:  # as a server does to its connections when it is demoted
            connection.exec_driver_sql("SET default_transaction_read_only = on")
        with pytest.raises(InternalError, match="read-only"):
            store.store(arrivals(batch(1)))
        assert store.store(arrivals(batch(1))).marks == {KEY: Mark(1)}


NEWEST = """
import re, sys
from pathlib import Path
from agent.hub.reader import HubReader

def most_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

reader = HubReader.open_for_reading(sys.argv[1])
reader.results("d1", "kw", 1, boot="b0")
before_kib = most_kib()
seqs = [row["seq"] for row in reader.results("d1", "kw", 3)]
print(*seqs, most_kib() - before_kib)
"""


def test_the_newest_results_of_a_long_boot_need_not_all_be_in_memory(store: HubStore, target: Target) -> None:
    texts = [random.Random(seq).randbytes(400).hex() for seq in range(100)]
    rows: list[tuple[int, wire.Row]] = [(seq, {"n": seq, "text": text}) for seq, text in enumerate(texts)]
    for begin in range(0, 600, 100):
        spans = range(1 + 100 * begin, 1 + 100 * (begin + 100), 100)
        store.store(
            arrivals(batch(1, boot="b0"), *(wire.encode("b1", "kw", n, rows, wire.SystemClock()) for n in spans))
        )
    command = [sys.executable, "-c", NEWEST, str(target)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert said[:3] == ["59998", "59999", "60000"]
    assert int(said[3]) < 8_000, "KiB; 26 MB lie there"
    assert len(store.results("d1", "kw", 10**6, boot="b1")) == 60_000


def test_groups_of_every_size_take_little_memory(tmp_path: Path) -> None:
    """SQLite keeps statements prepared, and each number of streams makes another one."""
    with closing(HubStore.open(tmp_path / "hub.db")) as store:
        maps = Path("/proc/self/maps").read_text().splitlines()
        library = next((line.split()[-1] for line in maps if "libsqlite3" in line), None)
        if library is None:
            pytest.skip("SQLite is built into Python")
        used = ctypes.CDLL(library).sqlite3_memory_used
        used.restype = ctypes.c_longlong
        keys = [(f"d{number}", "b1", "kw") for number in range(200)]
        before = used()
        for number in range(2, 200, 2):
            store.store(Arrivals(told=dict.fromkeys(keys[:number], told(1, 0, pending=1))))
        assert used() - before < 4_000_000, "bytes; they were 7 million"


def test_a_group_may_touch_very_many_streams(store: HubStore) -> None:
    keys = [(f"d{number}", "b1", "kw") for number in range(1500)]
    outcome = store.store(Arrivals(told=dict.fromkeys(keys, told(1, 0, pending=1)), asked={("d0", "b2", "kw")}))
    assert outcome.asked == {("d0", "b2", "kw"): Mark(0)}
    assert len(store.ledger()) == 1500
