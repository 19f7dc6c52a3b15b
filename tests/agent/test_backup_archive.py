"""What strangers, bad sticks and other versions make of a backup: refused, and nothing has changed."""

import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard

from agent.backup.archive import BackupError
from agent.backup.make import make
from agent.backup.verify import verify
from tests.agent.sites import Site, entries


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A backup of a device that has not worked yet."""
    (tmp_path / "axond.toml").write_text(f'[device]\nid = "d1"\nstate_dir = "{tmp_path}/state"\n')
    make(tmp_path / "axond.toml", tmp_path / "b.tar.zst", secrets=False, told=lambda done, total: None)
    return tmp_path / "b.tar.zst"


def write_archive(path: Path, parts: list[tuple[tarfile.TarInfo, bytes]], *, sums: bool = True) -> None:
    """An archive with right sums."""
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {info.name}\n" for info, content in parts)
    if sums:
        parts = [*parts, (tarfile.TarInfo("SHA256SUMS"), lines.encode())]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info, content in parts:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    path.write_bytes(zstandard.ZstdCompressor().compress(raw.getvalue()))


def changed(archive: Path, change: Callable[[dict[str, Any], list[tuple[tarfile.TarInfo, bytes]]], None]) -> None:
    parts = [part for part in entries(archive) if part[0].name != "SHA256SUMS"]
    head = json.loads(parts[0][1])
    change(head, parts)
    parts[0] = (tarfile.TarInfo("axond-backup.json"), json.dumps(head).encode())
    write_archive(archive, parts)


def special(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("state/models/x")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        *((tarfile.TarInfo(name), "leads out of its place") for name in
          ("../x", "state/../../x", "/etc/x", "state//x", "state/./x", "state/a\nb", "state/a\\b", "state/")),
        *((tarfile.TarInfo(name), "belongs to no backup") for name in
          ("x", "config/other", "etc/passwd", "state", "state/outbox.db-wal", "state/outbox.db.ready")),
        *((special(kind), "is no plain file") for kind in
          (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.AREGTYPE)),
        (tarfile.TarInfo("config/axond.toml"), "is there twice"),
        (tarfile.TarInfo("axond-backup.json"), "twice"),
    ],
)  # fmt: skip
def test_members_that_do_not_belong_are_refused(small: Path, extra: tarfile.TarInfo, sentence: str) -> None:
    changed(small, lambda head, parts: parts.append((extra, b"")))
    with pytest.raises(BackupError, match=sentence):
        verify(small)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda head: head.update(format=2), "has format 2, this axond (1) is older"),
        (lambda head: head.update(format=0), "is not one of a backup"),
        (lambda head: head.update(device=7), "is not one of a backup"),
        (lambda head: head.update(more=1), "is not one of a backup"),
        (lambda head: head.clear(), "is not one of a backup"),
    ],
)
def test_heads_that_are_not_ours_are_refused(
    small: Path, change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    changed(small, lambda head, parts: change(head))
    with pytest.raises(BackupError, match=re.escape(sentence)):
        verify(small)


def test_a_stranger_s_archive_changes_nothing(site: Site, archive: Path, capfd: Any) -> None:
    changed(archive, lambda head, parts: parts.append((tarfile.TarInfo("state/../../x"), b"x")))
    before = site.tree()
    assert site.restore(archive) == 1
    assert "leads out of its place" in capfd.readouterr().err
    assert site.tree() == before


def test_a_stranger_s_secrets_go_nowhere_else(site: Site, archive: Path, capfd: Any) -> None:
    names = (".bashrc", ".ssh/authorized_keys", "axond.toml", "axond.toml.d/zz.toml", "credentials-2/x")
    changed(
        archive,
        lambda head, parts: parts.extend((tarfile.TarInfo(f"config/secrets/{name}"), b"evil") for name in names),
    )
    (site.state / "streams" / "kw.new").unlink()  # is in no backup
    before = site.tree()
    assert site.restore(archive) == 0
    said = capfd.readouterr().out
    after = site.tree()
    assert {path: after[path] for path in before} == before
    assert not any(content == b"evil" for content in after.values())
    assert not (site.etc / ".ssh").exists()
    assert all(f"{site.etc}/{name} was left in the backup" in said for name in names)


@pytest.mark.parametrize("packaged", [True, False])
def test_what_the_configuration_names_comes_back_beside_the_package_s(
    site: Site, tmp_path: Path, packaged: bool, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    (site.etc / "ca.pem").write_text("authority")
    (site.etc / "axond.toml.d" / "20.toml").write_text(f'[uplink]\nca_file = "{site.etc}/ca.pem"\n')
    assert site.run("backup", str(tmp_path / "b.tar.zst"), "--with-secrets") == 0
    changed(
        tmp_path / "b.tar.zst", lambda head, parts: parts.append((tarfile.TarInfo("config/secrets/hub.env"), b"evil"))
    )
    if packaged:
        monkeypatch.setattr("agent.backup.restore.SOURCE_FOLDER", site.etc / "credentials")
    site.forget()
    assert site.restore(tmp_path / "b.tar.zst") == 0
    said = capfd.readouterr().out
    assert (site.etc / "ca.pem").exists() == packaged
    assert ("config/secrets/ca.pem" in said) != packaged
    assert "config/secrets/hub.env" in said and not (site.etc / "hub.env").exists()


def test_a_file_cut_off_or_changed_anywhere_is_refused(site: Site, archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    bad = tmp_path / "bad.tar.zst"
    for length in {0, 1, 3, 4, len(whole) // 3, len(whole) // 2, len(whole) - 40}:
        bad.write_bytes(whole[:length])
        with pytest.raises(BackupError):
            verify(bad)
    for position in range(0, len(whole), max(1, len(whole) // 200)):
        bad.write_bytes(whole[:position] + bytes([whole[position] ^ 0x20]) + whole[position + 1 :])
        try:
            contents = verify(bad)
        except BackupError:
            continue
        assert contents.sums == verify(archive).sums, f"byte {position}"
    bad.write_bytes(os.urandom(5000))
    with pytest.raises(BackupError):
        verify(bad)
    with pytest.raises(BackupError, match="cannot be read"):
        verify(tmp_path / "absent")


def test_an_archive_without_its_sums_or_with_wrong_ones_is_refused(archive: Path) -> None:
    parts = [part for part in entries(archive) if part[0].name != "SHA256SUMS"]
    write_archive(archive, parts, sums=False)
    with pytest.raises(BackupError):
        verify(archive)
    write_archive(archive, [*parts, (tarfile.TarInfo("SHA256SUMS"), b"nonsense\n")], sums=False)
    with pytest.raises(BackupError, match="SHA256SUMS"):
        verify(archive)
    lines = "".join(f"{'0' * 64}  {info.name}\n" for info, _ in parts).encode()
    write_archive(archive, [*parts, (tarfile.TarInfo("SHA256SUMS"), lines)], sums=False)
    with pytest.raises(BackupError, match="is not as it was written"):
        verify(archive)


def test_a_damaged_outbox_inside_is_refused_before_anything_changes(
    site: Site, archive: Path, tmp_path: Path, capfd: Any
) -> None:
    broken = tmp_path / "broken.db"
    shutil.copy(site.state / "outbox.db", broken)
    with closing(sqlite3.connect(broken)) as connection, connection:
        connection.execute("DELETE FROM batches WHERE id = (SELECT max(id) FROM batches)")
    with closing(sqlite3.connect(broken)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def swap(_: dict[str, Any], parts: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        at = next(i for i, (info, _) in enumerate(parts) if info.name == "state/outbox.db")
        parts[at] = (tarfile.TarInfo("state/outbox.db"), broken.read_bytes())

    changed(archive, swap)
    site.forget()
    assert site.restore(archive) == 1
    assert "the outbox in the backup" in capfd.readouterr().err
    assert not site.config.exists() and not (site.state / "models").exists()
    assert site.restore(archive, "--config-only") == 0


@pytest.mark.parametrize("wrong", [b"[device\n", b"a = " + b"[" * 5000, b"\xff"])
def test_a_wrong_configuration_inside_is_refused(site: Site, archive: Path, wrong: bytes, capfd: Any) -> None:
    def swap(_: dict[str, Any], parts: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        at = next(i for i, (info, _) in enumerate(parts) if info.name == "config/axond.toml")
        parts[at] = (tarfile.TarInfo("config/axond.toml"), wrong)

    changed(archive, swap)
    before = site.tree()
    assert site.restore(archive) == 1
    assert "the configuration in the backup is wrong" in capfd.readouterr().err
    assert site.tree() == before
