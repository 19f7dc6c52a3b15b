"""Where a hub can store (SQLite, a database of a real PostgreSQL), and an agent's folders with a backup of them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.hub.database import Target
from tests.agent.sites import Site
from tests.databases import Postgres, missing


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests of this process; each test has a database of its own."""
    if reason := missing():
        pytest.skip(reason)
    server = Postgres()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """An empty place to store, of each kind."""
    if request.param == "sqlite":
        return tmp_path / "hub.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An agent that does not run now, with a configuration and an outbox."""
    return Site(tmp_path).make()


@pytest.fixture
def archive(site: Site, tmp_path: Path) -> Path:
    """A backup of ``site``, secrets included."""
    assert site.run("backup", str(tmp_path / "b.tar.zst"), "--with-secrets") == 0
    return tmp_path / "b.tar.zst"


@pytest.fixture(scope="module")
def quick_disk() -> Iterator[Path]:
    """Memory, where there is some: hundreds of files are synced here."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)
