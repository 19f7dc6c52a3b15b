"""Completion and manual pages: made of the same parser as ``--help``, and tried with bash and man themselves."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.__main__ import make_parser

TREE = Path(__file__).parents[2]
ASK = """source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _axond; printf '%s\\n' "${COMPREPLY[@]}" """


def made(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, str(TREE / script), *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("completion") / "axond"
    path.write_text(made("packaging/completion/bash.py"))
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("pages")
    made("packaging/man/pages.py", str(folder), "1.2.3")
    return folder


def offered(completion: Path, cwd: Path, *words: str) -> set[str]:
    command = ["bash", "--norc", "-c", ASK, "ask", str(completion), *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_words_and_files(completion: Path, tmp_path: Path) -> None:
    (tmp_path / "a file.toml").touch()
    (tmp_path / "node.toml").touch()
    every = offered(completion, tmp_path, "axond", "")
    assert {"run", "check", "status", "outbox", "model", "extras", "demo", "bench"} <= every
    assert not any(word.startswith("-") for word in every)
    assert offered(completion, tmp_path, "axond", "stat") == {"status"}
    assert {"build", "verify"} <= offered(completion, tmp_path, "axond", "model", "")
    assert "--json" in offered(completion, tmp_path, "axond", "status", "--")
    assert "--json" in offered(completion, tmp_path, "axond", "outbox", "stats", "--config", "x", "--")
    assert {"jsonl", "csv", "parquet"} == offered(completion, tmp_path, "axond", "outbox", "export", "--format", "")
    assert {"csv"} == offered(completion, tmp_path, "axond", "outbox", "export", "--format", "=", "c")
    assert "node.toml" in offered(completion, tmp_path, "axond", "run", "--config", "n")
    assert offered(completion, tmp_path, "axond", "status", "--json", "--config", "no") == {"node.toml"}
    assert offered(completion, tmp_path, "axond", "replay", "--model", "") == set()


def test_every_command_has_its_place_in_the_manual(pages: Path) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not installed (apt install man-db)")
    shown = {}
    for page in ("axond.1", "axond.toml.5"):
        command = ["man", "--warnings=w", "-l", str(pages / page)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={"MANWIDTH": "200", "PATH": "/usr/bin:/bin"}
        )
        assert (done.returncode, done.stderr) == (0, "")
        shown[page] = done.stdout
    parser = make_parser()
    (commands,) = (action.choices for action in parser._actions if action.dest == "command")
    for name in commands or ():
        assert f"\n   axond {name}\n" in shown["axond.1"]
    assert "axond 1.2.3" in shown["axond.1"]
    for key in (
        "state_dir",
        "commit_interval_s",
        "password_file",
        'driver = "audio.alsa"',
        "rate_hz",
        "[pipelines.NAME]",
    ):
        assert key in shown["axond.toml.5"]
