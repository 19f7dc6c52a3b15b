"""Shared by the tests of backends in processes of their own."""

from pathlib import Path

import pytest

from tests.models import faulty


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says what goes wrong in the backend ``faulty``, which is installed for this test."""
    faulty.install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("AXOND_FAULT", str(tmp_path / "fault"))
    return tmp_path / "fault"
