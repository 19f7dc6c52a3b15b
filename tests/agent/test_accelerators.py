"""``axond accelerators``: what is usable here, tried for real; a third party's package stands in the list too."""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from agent.__main__ import main
from models.backends import onnx
from models.base import Survey
from models.registry import backends
from tests.models import faulty


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert main(["accelerators", "--json"]) == 0
    return {row["backend"]: row for row in json.loads(capsys.readouterr().out)}


def test_every_backend_is_tried_or_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty.install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("AXOND_FAULT", str(tmp_path / "fault"))
    monkeypatch.setenv("AXOND_LAVA", str(tmp_path / "no-lava"))
    (tmp_path / "fault").write_text("crash")
    found = rows(capsys)
    assert list(found) == backends()
    assert found["reference"]["usable"] is True
    assert str(found["reference"]["runtime"]).startswith("numpy ")
    assert str(found["reference"]["reason"]).startswith("answers the golden vectors of ")
    assert found["faulty"]["usable"] is False
    assert "was ended by SIGSEGV" in str(found["faulty"]["reason"])
    assert found["lava"]["usable"] is False
    assert "axond lava install" in str(found["lava"]["reason"])
    assert all(row["reason"] for row in found.values())


def test_a_build_of_onnxruntime_under_another_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "onnxruntime-gpu":  # as the wheels for Jetson call themselves
            raise PackageNotFoundError(name)
        return "1.18.0"

    monkeypatch.setattr(onnx, "version", version)
    assert onnx.OnnxBackend.survey() == Survey("onnxruntime 1.18.0")


def test_people_get_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AXOND_LAVA", str(tmp_path / "no-lava"))
    assert main(["accelerators"]) == 0
    shown = capsys.readouterr().out
    assert "reference" in shown and "axond lava install" in shown and 'backend = "auto"' in shown
