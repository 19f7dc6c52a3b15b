"""What ``axond demo`` cannot be asked for is one sentence, said before anything is started."""

from pathlib import Path

import pytest

from agent.__main__ import main


def test_a_folder_that_cannot_be_kept_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    for keep, said in ((taken, "File exists"), (taken / "below", "Not a directory"), (tmp_path, "not empty")):
        assert main(["demo", "--keep", str(keep)]) == 1
        text = capsys.readouterr().err
        assert f"--keep {keep}: {said}; name a new folder" in text
        assert text.count("\n") == 1


def test_a_seed_is_not_negative(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seed", "-1"]) == 2
    assert "-1 is below 0" in capsys.readouterr().err
