"""``axond hub``: what people and programs see of a store, on SQLite and PostgreSQL."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agent.__main__ import main
from agent.hub.alarms import Report
from agent.hub.database import Target
from agent.hub.store import Arrivals, HubStore
from tests.agent.test_hub_store import KEY, arrivals, batch, told
from tests.end_to_end.rig import axond


@pytest.fixture
def filled(target: Target) -> str:
    with closing(HubStore.open(target)) as store:
        group = arrivals(batch(1, 3), batch(5, 2))
        group.documents["d1", "status"] = ("", json.dumps({"state": "online", "agent": "0.1.0", "boot": "b1"}))
        store.store(group)
    return str(target)


def test_devices(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hub", "devices", "--json", "--db", filled]) == 0
    (device,) = json.loads(capsys.readouterr().out)
    assert device["status"]["state"] == "online"
    assert {"name", "status", "info", "metrics", "last_us", "rejected", "alarms", "events", "last_event"} == (
        device.keys()
    )
    assert main(["hub", "devices", "--db", filled]) == 0
    assert "online" in capsys.readouterr().out


def test_results(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    def found(*more: str) -> list[int]:
        assert main(["hub", "results", "--device", "d1", "--json", "--db", filled, *more]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert all(row["stream"] == "kw" and row["boot"] == "b1" and row["n"] == row["seq"] for row in rows)
        return [row["seq"] for row in rows]

    assert found() == [1, 2, 3, 5, 6]
    assert found("--limit", "2") == [5, 6]
    assert found("--stream", "kw", "--until", "2001-01-01") == []
    assert found("--since", "2001-01-01T00:00:00Z", "--until", "2999-01-01T00:00:00+02:00") == [1, 2, 3, 5, 6]
    assert main(["hub", "results", "--device", "d1", "--db", filled, "--since", "noon"]) == 2
    assert "noon is no time" in capsys.readouterr().err


def test_the_ledger_and_its_alarms(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hub", "ledger", "--json", "--db", filled]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["stored"], line["upto"], line["ahead"], line["expired"]) == (5, 3, 2, 0)
    assert (line["problem"], line["alarm"], line["reported"]) == (None, None, None)
    with closing(HubStore.open(filled)) as store:
        store.store(Arrivals(told={KEY: told(9, 9)}, reports={"d1": Report("b1", idle=True)}))
    assert main(["hub", "ledger", "--db", filled]) == 1
    assert "the device delivered 9, stored are 5" in capsys.readouterr().out


def test_what_cannot_be_opened_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("run", "ledger"):
        ended = axond("hub", action, "--db", "mysql://u:secret@host/db")
        assert ended.returncode == 78
        assert "expected a file, or a URL that begins with postgresql://" in ended.stderr
        assert "secret" not in ended.stderr
    ended = axond("hub", "run", "--db", str(tmp_path / "new.db"), "--keep-days", "0")
    assert ended.returncode == 2
    assert "0 is not between 1 and 36500" in ended.stderr
    assert main(["hub", "devices", "--db", str(tmp_path / "none.db")]) == 1
    assert "has a hub run with this path?" in capsys.readouterr().err
    (tmp_path / "text.db").write_text("no database at all" * 100)
    assert main(["hub", "devices", "--db", str(tmp_path / "text.db")]) == 1
    assert "not a database" in capsys.readouterr().err


def test_a_database_that_does_not_answer_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("psycopg")
    assert main(["hub", "ledger", "--db", f"postgresql://u:secret@/db?host={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert "connection" in said
    assert "secret" not in said
    assert len(said.splitlines()) == 1


WITHOUT = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from agent.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("module", "where", "code", "sentence"),
    [
        ("sqlalchemy", "hub.db", 1, "the hub needs SQLAlchemy, which is missing: pip install 'axond[hub]'"),
        ("psycopg", "postgresql://host/db", 78, "PostgreSQL needs psycopg, which is missing: pip install"),
    ],
)
def test_a_package_that_is_missing_is_a_sentence(module: str, where: str, code: int, sentence: str) -> None:
    command = [sys.executable, "-c", WITHOUT, module, "hub", "ledger", "--db", where]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == code
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
