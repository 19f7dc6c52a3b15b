"""Where a hub can store, for every test of hubs: a SQLite file, and a database of a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.hub.database import Target
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
