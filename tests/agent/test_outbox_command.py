"""``axond outbox`` beside a running outbox and alone."""

import csv
import io
import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.__main__ import main
from agent.backup.archive import BackupError
from agent.backup.outbox import copy
from agent.outbox import Outbox
from agent.record import Priority
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose outbox holds results of two streams and a gap record, and whose agent has stopped."""
    path = tmp_path / "axond.toml"
    path.write_text(f'[device]\nid = "d1"\nstate_dir = "{tmp_path / "state"}"\n')
    outbox = Outbox(tmp_path / "state" / "outbox.db", boot="b1")
    run = Running(outbox)
    for number in range(6):
        outbox.put("kw", {"t_ns": number, "label": "yes", "score": number / 2}, priority=Priority.ALARM)
        eventually(lambda: not outbox.unwritten, "stored")
    outbox.put("imu", {"t_ns": 7, "score": 1, "text": 'a,b\n"c"'}, priority=Priority.ALARM)
    eventually(lambda: not outbox.unwritten, "stored")
    records = outbox.lease(10, 1.0)
    outbox.settle(records[1:2], records[2:])
    outbox.give_up(records[0], "rejected by the hub")
    run.stop()
    return path


def outbox_command(config: Path, capfd: Any, *arguments: str) -> tuple[int, str, str]:
    code = main(["outbox", *arguments, "--config", str(config)])
    out, err = capfd.readouterr()
    return code, out, err


def database(config: Path) -> Path:
    return config.parent / "state" / "outbox.db"


def test_stats_and_ls_beside_a_running_agent(config: Path, capfd: Any, running: Start) -> None:
    outbox = Outbox(database(config), boot="b2")
    running(outbox)
    eventually(outbox.opened.is_set, "open")
    code, out, _ = outbox_command(config, capfd, "stats", "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["rows"], facts["batches"], facts["gap_records"]) == (5, 5, 1)
    assert facts["ledger"]["b1/kw"] | {"pending": 4} == facts["ledger"]["b1/kw"]
    assert all(counts["balanced"] for counts in facts["ledger"].values())
    assert facts["damage"] == {"damaged_files": 0, "salvaged": 0, "lost": 0, "unproven": 0}
    assert facts["flash"].keys() == {"written_bytes", "bytes_per_result", "bytes_per_day"}
    assert "written to the flash" in outbox_command(config, capfd, "stats")[1]
    listed = json.loads(outbox_command(config, capfd, "ls", "--json")[1])
    assert [row["kind"] for row in listed].count("gap") == 1


def test_what_was_written_to_the_flash_is_counted(config: Path, capfd: Any) -> None:
    flash = json.loads(outbox_command(config, capfd, "stats", "--json")[1])["flash"]
    with Path("/proc/thread-self/io").open() as io_file:
        assert "write_bytes" in io_file.read()
    with closing(sqlite3.connect(database(config))) as db:
        totals = dict(db.execute("SELECT name, value FROM totals"))
    if totals["written_bytes"] == 0:
        pytest.skip("the tests' folder is in memory")
    assert flash["written_bytes"] == totals["written_bytes"] > database(config).stat().st_size
    assert flash["bytes_per_result"] == pytest.approx(flash["written_bytes"] / 7, 0.01)


def test_fsck_finds_nothing_in_a_whole_file_and_every_kind_of_trouble(config: Path, capfd: Any) -> None:
    code, out, _ = outbox_command(config, capfd, "fsck")
    assert code == 0 and "books balance" in out
    with closing(sqlite3.connect(database(config), isolation_level=None)) as db:
        whole = db.execute("SELECT id, payload FROM batches WHERE stream = 'kw' AND NOT is_gap ORDER BY id").fetchall()
        db.execute("UPDATE batches SET payload = ? WHERE id = ?", (whole[1][1], whole[0][0]))
        db.execute("UPDATE batches SET payload = x'00' WHERE id = ?", (whole[1][0],))
        db.execute("DELETE FROM batches WHERE stream = 'imu'")
        db.execute("UPDATE ledger SET refused = 9 WHERE stream = 'kw'")
    code, out, err = outbox_command(config, capfd, "fsck")
    assert code == 1 and "saves what can be read" in err
    for words in ("of other numbers", "is not zstd", "numbers 1 to 1 are missing", "0 results are stored", "checksum"):
        assert words in out, words
    assert len(json.loads(outbox_command(config, capfd, "fsck", "--json")[1])["problems"]) >= 5


def test_export_as_json_lines_and_csv(config: Path, capfd: Any) -> None:
    code, out, _ = outbox_command(config, capfd, "export")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [(row["stream"], row["seq"]) for row in rows] == [
        *(("kw", n) for n in range(3, 7)),
        ("imu", 1),
    ]
    code, out, _ = outbox_command(config, capfd, "export", "--format", "csv")
    table = list(csv.DictReader(io.StringIO(out)))
    assert list(table[0]) == ["boot", "stream", "seq", "t_us", "t_unc_ms", "label", "score", "text"]
    assert (table[0]["label"], table[0]["text"], table[-1]["label"], table[-1]["text"]) == ("yes", "", "", 'a,b\n"c"')


def test_export_as_parquet(config: Path, capfd: Any, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "pending.parquet"
    assert outbox_command(config, capfd, "export", "--format", "parquet", "--output", str(target))[0] == 0
    rows = parquet.read_table(target).to_pylist()
    assert [row["score"] for row in rows] == [1.0, 1.5, 2.0, 2.5, 1.0]
    assert rows[-1] | {"boot": "b1", "stream": "imu", "seq": 1, "label": None} == rows[-1]


def test_parquet_without_its_extra_is_a_sentence(config: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = outbox_command(config, capfd, "export", "--format", "parquet")
    assert code == 1 and "pip install 'axond[parquet]'" in err


def test_an_export_that_cannot_be_written_is_a_sentence(config: Path, capfd: Any, tmp_path: Path) -> None:
    code, _, err = outbox_command(config, capfd, "export", "--output", str(tmp_path / "none" / "x"))
    assert code == 1 and "cannot be written" in err and "Traceback" not in err


def test_a_wal_that_was_damaged_in_the_middle_is_told_and_left_to_the_agent(
    config: Path, capfd: Any, running: Start, tmp_path: Path
) -> None:
    """SQLite takes it for ended there: whoever opens it to write drops the rest without a word."""
    alive = Outbox(tmp_path / "alive.db", boot="b2")
    running(alive)
    for number in range(40):
        alive.put("kw", {"x": number}, priority=Priority.ALARM)
        eventually(lambda: not alive.unwritten, "stored")
    path, wal = database(config), database(config).with_name("outbox.db-wal")
    path.write_bytes((tmp_path / "alive.db").read_bytes())  # as after kill -9: nobody has closed it
    content = bytearray((tmp_path / "alive.db-wal").read_bytes())
    content[len(content) // 2] ^= 0xFF
    wal.write_bytes(content)
    code, out, _ = outbox_command(config, capfd, "fsck")
    assert code == 1 and "in the middle of its WAL are damaged" in out
    for action in ("stats", "ls", "export"):
        code, _, err = outbox_command(config, capfd, action)
        assert code == 0 and "an agent that starts on it saves more" in err
    code, _, err = outbox_command(config, capfd, "vacuum")
    assert code == 1 and "start the agent once" in err and wal.read_bytes() == content
    with pytest.raises(BackupError, match="start the agent"):
        copy(path, tmp_path / "copied.db", lambda _: None, "start the agent")
    again = Outbox(path, boot="b3")
    running(again)
    eventually(again.opened.is_set, "open")
    assert (again.depth().rows, again.depth().lost) == (40, 0)


def test_vacuum_makes_the_file_smaller_but_not_beside_an_agent(config: Path, capfd: Any) -> None:
    outbox = Outbox(database(config), boot="b2")
    run = Running(outbox)
    for _ in range(300):
        outbox.put("kw", {"text": "x" * 1000}, priority=Priority.ALARM)
    eventually(lambda: outbox.opened.is_set() and not outbox.unwritten, "stored")
    code, _, err = outbox_command(config, capfd, "vacuum")
    assert code == 78 and "held by another agent process" in err
    while not outbox.wait_drained(0.0):
        outbox.settle(outbox.lease(100, 0.1))
    run.stop()
    before_bytes = database(config).stat().st_size
    assert outbox_command(config, capfd, "vacuum")[0] == 0
    assert database(config).stat().st_size <= before_bytes
    assert outbox_command(config, capfd, "fsck")[0] == 0
    again = Outbox(database(config), boot="b3")
    run = Running(again)
    eventually(again.opened.is_set, "open")
    run.stop()
    assert again.depth().damaged_files == 0
