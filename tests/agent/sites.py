"""An installation in a folder, as backups meet it."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

from agent.__main__ import main
from agent.outbox import Outbox
from agent.outbox_store import audit
from agent.record import Priority
from tests.conftest import Running, eventually


def put(outbox: Outbox, count: int, stream: str = "kw") -> None:
    for number in range(count):
        outbox.put(stream, {"t_ns": number, "label": "yes"}, priority=Priority.ALARM)
        eventually(lambda: not outbox.unwritten, "stored")


def fill(state: Path, boot: str, count: int, delivered: int = 0) -> None:
    """An agent's life: results, some of them delivered."""
    outbox = Outbox(state / "outbox.db", boot=boot)
    run = Running(outbox)
    eventually(outbox.opened.is_set, "open")
    put(outbox, count)
    if delivered:
        outbox.settle(outbox.lease(delivered, 1.0))
    run.stop()


class Site:
    """An installation in a folder."""

    def __init__(self, folder: Path) -> None:
        self.etc = folder / "etc"
        self.state = folder / "state"
        self.config = self.etc / "axond.toml"

    def make(self) -> "Site":
        (self.etc / "axond.toml.d").mkdir(parents=True)
        (self.etc / "credentials").mkdir()
        (self.etc / "credentials" / "mqtt").write_text("secret-word")
        self.config.write_text(
            f'[device]\nid = "d1"\nstate_dir = "{self.state}"\n[uplink]\nhost = "broker"\nusername = "d1"\n'
            f'password_file = "{self.etc}/credentials/mqtt"\n'
        )
        (self.etc / "axond.toml.d" / "10-log.toml").write_text('[log]\nlevel = "debug"\n')
        (self.state / "models" / "mine").mkdir(parents=True)
        (self.state / "models" / "mine" / "manifest.json").write_text("{}")
        (self.state / "streams").mkdir()
        (self.state / "streams" / "kw.npz").write_bytes(bytes(range(256)) * 300)
        (self.state / "streams" / "kw.new").write_bytes(b"half")
        fill(self.state, "b1", 5, delivered=2)
        return self

    def forget(self) -> None:
        """The disk is new."""
        shutil.rmtree(self.etc)
        shutil.rmtree(self.state)

    def run(self, *arguments: str) -> int:
        return main([*arguments, "--config", str(self.config)])

    def restore(self, archive: Path, *arguments: str) -> int:
        return self.run("restore", str(archive), "--state-dir", str(self.state), *arguments)

    def pending(self) -> dict[tuple[str, str], int]:
        return {key: counts.pending for key, counts in audit(self.state / "outbox.db").items()}

    def tree(self) -> dict[str, bytes]:
        files = [path for folder in (self.etc, self.state) for path in folder.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in files if "outbox.db" not in path.name}


def entries(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """What a backup holds, read as other programs read it."""
    with (
        path.open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        for info in tar:
            content = tar.extractfile(info)
            yield info, content.read() if content else b""
