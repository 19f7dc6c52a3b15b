"""``axond lava``: says what is there and what is missing; never harms a folder that is not its own."""

import json
import sys
from pathlib import Path

import pytest

from agent.__main__ import main
from models.backends.lava import LavaBackend, home, python

installed = pytest.mark.skipif(
    not python(home()).exists(), reason=f"Lava is not installed ({home()} is not there): axond lava install"
)


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Python 3.10, pyenv or uv in reach."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_status_says_that_nothing_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AXOND_LAVA", str(tmp_path / "none"))
    assert main(["lava", "status"]) == 1
    assert capsys.readouterr().out == f"Lava: not installed ({tmp_path / 'none'} is not there): axond lava install\n"
    assert main(["lava", "status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["lava"] is None


def test_install_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AXOND_LAVA", str(tmp_path / "none"))
    assert main(["lava", "install"]) == 1
    assert "Lava needs Python 3.10 with its venv module" in capsys.readouterr().err
    program(tmp_path / "bin" / "python3.10", "echo no module named ensurepip >&2; exit 1")
    assert main(["lava", "install"]) == 1
    assert "python3.10 failed (no module named ensurepip)" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_another_version_of_python_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AXOND_LAVA", str(tmp_path / "none"))
    if sys.version_info[:2] == (3, 10):
        pytest.skip("this is Python 3.10")
    (tmp_path / "pyenv" / "versions" / "3.10.1" / "bin").mkdir(parents=True)
    (tmp_path / "pyenv" / "versions" / "3.10.1" / "bin" / "python3.10").symlink_to(sys.executable)
    assert main(["lava", "install"]) == 1
    assert "this machine has none" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_no_environment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").write_text("precious")
    monkeypatch.setenv("AXOND_LAVA", str(tmp_path))
    assert main(["lava", "install"]) == 1
    assert f"{tmp_path} is there, but is no virtual environment" in capsys.readouterr().err
    assert (tmp_path / "photos").read_text() == "precious"


def test_an_environment_of_somebody_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "venv"
    mine.mkdir()
    (mine / "pyvenv.cfg").write_text("version = 3.12.1\n")
    monkeypatch.setenv("AXOND_LAVA", str(mine))
    program(tmp_path / "bin" / "python3.10", f'case "$*" in *venv*) rm {mine}/pyvenv.cfg;; *) echo 3.10;; esac')
    assert main(["lava", "install"]) == 1
    assert f"{mine} is a virtual environment that axond did not make" in capsys.readouterr().err
    assert (mine / "pyvenv.cfg").exists()


def test_a_place_that_nobody_can_look_at(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AXOND_LAVA", f"/{'x' * 300}")
    assert "Lava is not installed" in str(LavaBackend.survey().missing)
    assert main(["lava", "status"]) == 1
    assert main(["lava", "install"]) == 1
    assert "cannot be looked at" in capsys.readouterr().err


@installed
def test_an_installed_lava_answers_and_is_not_installed_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lava", "install"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["lava", "status", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["python"].startswith("3.10.")
    assert (facts["lava"], facts["trouble"]) == ("0.10.0", None)


def test_the_service_gets_no_python_below_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its unit has ``ProtectHome=``."""
    system = tmp_path / "opt" / "lava"
    for module in ("agent.cli.lava", "models.backends.lava"):
        monkeypatch.setattr(f"{module}.SYSTEM_HOME", system)
    monkeypatch.setattr("agent.cli.lava.HIDDEN", (str(tmp_path / "root"),))
    monkeypatch.setattr("agent.cli.lava.FETCHED", tmp_path / "opt" / "python")
    monkeypatch.setenv("AXOND_LAVA", str(system))
    hidden = tmp_path / "root" / "python3.10"
    program(hidden, "echo 3.10")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3.10").symlink_to(hidden)
    assert main(["lava", "install"]) == 1
    said = capsys.readouterr().err
    assert f"{hidden} lies below {tmp_path}/root, which the service does not see" in said
    assert said.rstrip().endswith("or set AXOND_LAVA to a folder that the service need not see")
    assert not system.exists()
    program(
        tmp_path / "bin" / "uv", f'echo "$UV_PYTHON_INSTALL_DIR $UV_PYTHON_PREFERENCE $*" > {tmp_path}/asked; exit 1'
    )
    (tmp_path / "bin" / "env").symlink_to("/usr/bin/env")
    assert main(["lava", "install"]) == 1
    asked = (tmp_path / "asked").read_text()
    assert asked == f"{tmp_path}/opt/python only-managed venv --quiet --clear --seed --python 3.10 {system}\n"


def test_a_python_that_cannot_be_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    python(tmp_path).symlink_to(tmp_path / "gone")
    monkeypatch.setenv("AXOND_LAVA", str(tmp_path))
    assert f"bin/python leads to {tmp_path}/gone, which cannot be run here" in str(LavaBackend.survey().missing)
