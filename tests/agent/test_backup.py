"""``axond backup`` and ``axond restore`` between folders; the outbox copied while it works, and joined."""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import zstandard

from agent import config
from agent.__main__ import main
from agent.backup import outbox as copies
from agent.backup.archive import members
from agent.outbox import Outbox
from agent.outbox_reader import problems, records
from agent.outbox_store import audit
from agent.record import Priority
from tests.agent.sites import Site, entries, fill, put
from tests.conftest import Running, eventually

Start = Callable[[Any], Running]


def test_onto_an_empty_machine_all_is_as_it_was(site: Site, archive: Path, capfd: Any) -> None:
    before = site.tree()
    before.pop(str(site.state / "streams" / "kw.new"))
    counts = audit(site.state / "outbox.db")
    site.forget()
    assert site.restore(archive) == 0
    said = capfd.readouterr().out
    assert site.tree() == before
    assert {path.name for path in site.state.glob("*.db*")} == {"outbox.db", "outbox.db.lock"}
    assert audit(site.state / "outbox.db") == counts
    assert list(problems(site.state / "outbox.db")) == []
    assert "3 results" in said and "the configuration is right" in said
    assert [path.name for path in site.state.iterdir() if path.name.startswith(".")] == []
    assert [path.name for path in site.etc.iterdir() if path.name.startswith(".")] == []
    assert (site.etc / "credentials" / "mqtt").stat().st_mode & 0o777 == 0o600
    settings = config.load(site.config)
    assert (settings.device.id, settings.log.level) == ("d1", "debug")


def test_other_programs_can_read_it_and_its_sums(archive: Path) -> None:
    contents = {info.name: content for info, content in entries(archive)}
    lines = contents.pop("SHA256SUMS").decode().splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert set(contents) == {
        "axond-backup.json",
        "config/axond.toml",
        "config/axond.toml.d/10-log.toml",
        "config/secrets/credentials/mqtt",
        "state/models/mine/manifest.json",
        "state/outbox.db",
        "state/streams/kw.npz",
    }


def test_a_backup_is_for_its_owner_and_without_secrets_unless_asked(site: Site, tmp_path: Path, capfd: Any) -> None:
    target = tmp_path / "plain.tar.zst"
    old_umask = os.umask(0)
    try:
        assert site.run("backup", str(target)) == 0
    finally:
        os.umask(old_umask)
    assert target.stat().st_mode & 0o777 == 0o600
    said = capfd.readouterr().out
    assert "credentials/mqtt: it may be a secret; --with-secrets takes it in" in said
    assert not any("secrets" in member.name for member in members(target))
    assert b"secret-word" not in zstandard.ZstdDecompressor().decompressobj().decompress(target.read_bytes())
    site.forget()
    assert site.restore(target) == 0
    said = capfd.readouterr().out
    assert "no passwords and keys are in the backup" in said
    assert "before the agent can start" in said and "password_file" in said
    assert site.run("backup", str(target), "--with-secrets", "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["head"]["device"] == "d1" and facts["head"]["results"] == 3
    assert "is not a file below" in str(facts["left_out"])


def test_a_secret_elsewhere_and_a_model_elsewhere_are_named(site: Site, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "ca.pem").write_text("x")
    (site.etc / "axond.toml.d" / "20.toml").write_text(
        f'[uplink]\nca_file = "{tmp_path}/ca.pem"\n[pipelines.p]\nsensors = ["s"]\nmodel = "./mine"\n'
        f'locate.classes = "/elsewhere/c.npz"\n[pipelines.q]\nmodel = "{site.state}/models/mine"\n'
        '[sensors.s]\ndriver = "nonsense"\n[mirrors.m]\ntoken_file = "%d/token"\n'
    )
    assert site.run("backup", str(tmp_path / "b.tar.zst"), "--with-secrets", "--json") == 0
    left_out = json.loads(capfd.readouterr().out)["left_out"]
    assert set(left_out) == {f"{tmp_path}/ca.pem", "./mine", "/elsewhere/c.npz", "%d/token"}


def test_what_was_there_is_kept_and_drop_ins_are_replaced_as_a_whole(site: Site, archive: Path) -> None:
    (site.etc / "axond.toml.d" / "99-new.toml").write_text('[log]\nlevel = "error"\n')
    site.config.write_text('[device]\nid = "d1"\nstate_dir = "/elsewhere"\n')
    (site.state / "models" / "mine" / "manifest.json").write_text("newer")
    assert site.restore(archive) == 0
    assert config.load(site.config).log.level == "debug"
    assert "/elsewhere" in site.config.with_name("axond.toml.before-restore-1").read_text()
    assert (site.etc / "axond.toml.d.before-restore-1" / "99-new.toml").exists()
    assert (site.state / "models.before-restore-1" / "mine" / "manifest.json").read_text() == "newer"
    assert (site.state / "models" / "mine" / "manifest.json").read_text() == "{}"
    assert site.restore(archive) == 0
    assert (site.state / "models.before-restore-2" / "mine").exists()
    again = site.etc.parent / "again.tar.zst"
    assert site.run("backup", str(again)) == 0
    assert site.run("backup", str(again), "--with-secrets") == 0
    assert not any("before-restore" in member.name for member in members(again))


def test_an_outbox_that_went_on_is_newer(site: Site, archive: Path, capfd: Any) -> None:
    outbox = Outbox(site.state / "outbox.db", boot="b2")
    run = Running(outbox)
    eventually(outbox.opened.is_set, "open")
    put(outbox, 4)
    leased = [record for record in outbox.lease(10, 1.0) if record.boot == "b1"]
    outbox.settle(leased)  # delivered after the backup: they must not come back
    run.stop()
    before = audit(site.state / "outbox.db")
    assert site.restore(archive) == 0
    assert not list(site.state.glob("outbox.db.before*"))
    assert audit(site.state / "outbox.db") == before
    assert "lacks nothing of it: it stays" in capfd.readouterr().out
    assert site.pending() == {("b1", "kw"): 0, ("b2", "kw"): 4}


def test_an_outbox_that_began_anew_gets_back_what_it_never_had(site: Site, archive: Path, running: Start) -> None:
    shutil.rmtree(site.state)
    fill(site.state, "b7", 4, delivered=1)
    assert site.restore(archive) == 0
    assert {path.name for path in site.state.glob("*.db*")} == {
        "outbox.db",
        "outbox.db.lock",
        "outbox.db.before-restore-1",
    }
    db = site.state / "outbox.db"
    assert site.pending() == {("b1", "kw"): 3, ("b7", "kw"): 3}
    assert [(record.boot, record.seq0) for record in records(db)] == [
        ("b7", 2), ("b7", 3), ("b7", 4), ("b1", 3), ("b1", 4), ("b1", 5)
    ]  # fmt: skip
    outbox = Outbox(db, boot="b8")
    running(outbox)
    eventually(outbox.opened.is_set, "an agent takes the joined outbox")
    put(outbox, 1)
    assert len(outbox.lease(10, 1.0)) == 7
    assert outbox.ledger()["b8", "kw"].pending == 1


def test_numbers_are_not_given_out_twice_after_a_restore(site: Site, archive: Path, running: Start) -> None:
    """Results 6 and 7 of boot b1 were delivered and forgotten with the disk; no later start counts on in b1."""
    fill(site.state, "b2", 2, delivered=2)
    site.forget()
    assert site.restore(archive) == 0
    outbox = Outbox(site.state / "outbox.db", boot="b3")
    running(outbox)
    eventually(outbox.opened.is_set, "open")
    put(outbox, 2)
    given_out = {(r.boot, r.seq0) for r in outbox.lease(20, 1.0)}
    assert given_out == {("b1", 3), ("b1", 4), ("b1", 5), ("b3", 1), ("b3", 2)}


def test_a_copy_while_the_outbox_works_is_one_moment_of_it(
    tmp_path: Path, running: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "STEP_PAGES", 2)
    path = tmp_path / "state" / "outbox.db"
    outbox = Outbox(path, boot="b1")
    run = running(outbox)
    eventually(outbox.opened.is_set, "open")
    done = Event()

    def produce() -> None:
        number = 0
        while not done.is_set():
            outbox.put("kw", {"t_ns": number, "text": "x" * 200}, priority=Priority.ALARM)
            number += 1
            leased = outbox.lease(5, 0)
            outbox.settle(leased[: number % 4 == 0], leased[number % 4 == 0 :])
            done.wait(0.0005)

    producer = Thread(target=produce)
    producer.start()
    try:
        eventually(lambda: outbox.depth().batches > 60, "it works")
        told: list[int] = []
        for number in range(8):
            # Every copy is checked, its books against its batches.
            copies.copy(path, tmp_path / f"{number}.db", told.append, "")
            assert copies.waiting(tmp_path / f"{number}.db") > 0
        assert min(told) >= 0, "no copy began anew because the outbox was written meanwhile"
        assert len(told) > 40, "in steps"
    finally:
        done.set()
        producer.join()
    run.stop()
    assert list(problems(path)) == []
    produced = [audit(tmp_path / f"{number}.db")["b1", "kw"].produced for number in range(8)]
    assert produced == sorted(produced) and produced[0] < produced[-1]


def test_a_damaged_outbox_is_not_backed_up(site: Site, tmp_path: Path, capfd: Any) -> None:
    with closing(sqlite3.connect(site.state / "outbox.db")) as connection, connection:
        connection.execute("UPDATE ledger SET produced = produced + 1")
    assert site.run("backup", str(tmp_path / "b.tar.zst")) == 1
    assert "is damaged" in capfd.readouterr().err
    assert not (tmp_path / "b.tar.zst").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["etc", "state"]


def test_restore_refuses_while_an_agent_runs(site: Site, archive: Path, running: Start, capfd: Any) -> None:
    outbox = Outbox(site.state / "outbox.db", boot="b2")
    running(outbox)
    eventually(outbox.opened.is_set, "open")
    before = site.tree()
    for arguments in ((), ("--config-only",)):
        assert site.restore(archive, *arguments) == 1
        assert "an agent runs on" in capfd.readouterr().err
    assert site.tree() == before


def test_a_damaged_outbox_here_stops_the_restore(site: Site, archive: Path, capfd: Any) -> None:
    with closing(sqlite3.connect(site.state / "outbox.db")) as connection, connection:
        connection.execute("UPDATE ledger SET produced = produced + 1")
    before = site.tree()
    assert site.restore(archive) == 1
    assert "start the agent once" in capfd.readouterr().err
    assert site.tree() == before


def test_a_place_that_is_not_expected_is_asked_for(site: Site, archive: Path, capfd: Any) -> None:
    site.forget()
    assert site.run("restore", str(archive)) == 1
    assert f"add --state-dir {site.state}" in capfd.readouterr().err
    assert not site.state.exists() and not site.config.exists()
    assert site.restore(archive) == 0
    assert site.run("restore", str(archive)) == 0, "the configuration that is here says it"


def test_another_device_takes_all_but_the_results(site: Site, archive: Path, capfd: Any) -> None:
    site.forget()
    assert site.restore(archive, "--as-new-device", "d2") == 0
    said = capfd.readouterr().out
    assert "the 3 results in the backup are those of 'd1' and stay in it" in said
    assert config.load(site.config).device.id == "d2"
    assert not (site.state / "outbox.db").exists()
    assert (site.state / "models" / "mine" / "manifest.json").exists()
    # That device does not become d1 by mistake, and may be made d2 again.
    assert site.restore(archive) == 1
    assert "this is device 'd2'" in capfd.readouterr().err
    fill(site.state, "b9", 2)
    assert site.restore(archive, "--as-new-device", "d2") == 0
    assert site.pending() == {("b9", "kw"): 2}
    for name in ("d1", "D 2", "a/b"):
        assert site.restore(archive, "--as-new-device", name) == 1
        assert "give another id" in capfd.readouterr().err


def test_a_name_that_came_from_the_host_is_kept_on_another_host(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    site.config.write_text(f'[device]\nstate_dir = "{site.state}"\n')
    monkeypatch.setattr("platform.node", lambda: "gate-1")
    assert site.run("backup", str(tmp_path / "b.tar.zst")) == 0
    site.forget()
    monkeypatch.setattr("platform.node", lambda: "gate-2")
    assert site.restore(tmp_path / "b.tar.zst") == 0
    assert config.load(site.config).device.id == "gate-1"
    assert "this is device 'gate-1' now" in capfd.readouterr().out
    # A machine that has worked under its own name has results of its own.
    site.forget()
    site.etc.mkdir()
    site.config.write_text(f'[device]\nstate_dir = "{site.state}"\n')
    fill(site.state, "b5", 2)
    before = site.config.read_text()
    for arguments in ((), ("--config-only",), ("--as-new-device", "gate-3")):
        assert site.restore(tmp_path / "b.tar.zst", *arguments) == 1
        assert "holds 2 results of device 'gate-2'" in capfd.readouterr().err
        assert site.pending() == {("b5", "kw"): 2}
        assert site.config.read_text() == before


def test_the_configuration_alone(site: Site, archive: Path) -> None:
    site.forget()
    assert site.restore(archive, "--config-only") == 0
    assert config.load(site.config).device.id == "d1"
    assert {path.name for path in site.state.iterdir()} == {"outbox.db.lock"}


def test_a_target_that_is_something_else_is_left_alone(site: Site, archive: Path, tmp_path: Path, capfd: Any) -> None:
    assert site.run("backup", str(site.config)) == 1
    assert "is no backup, so it is not replaced" in capfd.readouterr().err
    assert site.run("backup", str(archive)) == 0
    for target, sentence in ((tmp_path, "is a folder"), (tmp_path / "no" / "b", "is no folder")):
        assert site.run("backup", str(target)) == 1
        assert sentence in capfd.readouterr().err
    assert main(["backup", str(archive), "--config", str(tmp_path / "absent.toml")]) == 78


def test_a_backup_holds_no_backups(site: Site, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "link").symlink_to(site.state)
    for folder in (site.state, site.state / "models", tmp_path / "link"):
        assert site.run("backup", str(folder / "b.tar.zst")) == 1
        assert "is in the state_dir" in capfd.readouterr().err


def test_the_configuration_by_a_relative_path_and_a_secret_by_a_link(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = site.etc / "credentials" / "mqtt"
    secret.rename(secret.with_name("..mqtt-1"))
    secret.symlink_to("..mqtt-1")
    monkeypatch.chdir(tmp_path)
    assert main(["backup", "b.tar.zst", "--with-secrets", "--config", "etc/axond.toml"]) == 0
    site.forget()
    assert site.restore(tmp_path / "b.tar.zst") == 0
    assert secret.read_text() == "secret-word"


def test_what_no_restore_would_take_is_no_backup(site: Site, tmp_path: Path, capfd: Any) -> None:
    for name in (b"a\\b", "a\u00a0b".encode(), b"a\nb", b"a\xff", b"x" * 200):
        path = os.path.join(os.fsencode(site.state / "models"), name)  # noqa: PTH118 - no text
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        assert site.run("backup", str(tmp_path / "b.tar.zst")) == 1
        assert "nothing was written" in (said := capfd.readouterr().err) or "cannot be backed up" in said
        assert sorted(path.name for path in tmp_path.iterdir()) == ["etc", "state"]
        os.unlink(path)  # noqa: PTH108


def test_links_in_the_state_dir_are_named(site: Site, tmp_path: Path, capfd: Any) -> None:
    (site.state / "elsewhere").symlink_to(tmp_path)
    assert site.run("backup", str(tmp_path / "b.tar.zst"), "--json") == 0
    assert json.loads(capfd.readouterr().out)["left_out"][str(site.state / "elsewhere")].startswith("it is a link")


def test_what_is_kept_is_never_written_through_a_link(site: Site, archive: Path, tmp_path: Path) -> None:
    for folder in (site.etc, site.state):
        for name in ("axond.toml", "models", "clock.json"):
            (folder / f"{name}.before-restore-1").symlink_to(tmp_path / "victim")
    assert site.restore(archive) == 0
    assert not (tmp_path / "victim").exists()
    assert (site.etc / "axond.toml.before-restore-2").read_text() == site.config.read_text()


def test_no_outbox_yet(tmp_path: Path, capfd: Any) -> None:
    site = Site(tmp_path)
    site.etc.mkdir()
    site.config.write_text(f'[device]\nid = "d1"\nstate_dir = "{site.state}"\n')
    assert site.run("backup", str(tmp_path / "b.tar.zst")) == 0
    assert "no outbox yet" in capfd.readouterr().out
    assert site.restore(tmp_path / "b.tar.zst") == 0
    assert not (site.state / "outbox.db").exists()


def test_a_place_that_takes_no_file_is_one_sentence(site: Site, archive: Path, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "file").write_text("")
    arguments = ("--state-dir", str(site.state), "--config", str(tmp_path / "file" / "axond.toml"))
    assert main(["restore", str(archive), *arguments]) == 1
    assert "nothing has changed" in capfd.readouterr().err


def test_no_room_is_one_sentence(site: Site, archive: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    before = site.tree()
    monkeypatch.setattr("agent.backup.restore.SPARE_BYTES", 1 << 60)
    assert site.restore(archive) == 1
    assert "has too little room" in capfd.readouterr().err
    assert site.tree() == before
