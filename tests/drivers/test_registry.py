import subprocess
import sys
from pathlib import Path

import pytest

from drivers.base import Misconfigured
from drivers.fit import streaming
from drivers.registry import driver_class, driver_classes, kinds
from drivers.replay import Replay


def test_the_file_name_is_the_registration() -> None:
    assert {"imu.witmotion", "audio.file", "audio.alsa", "replay", "synthetic"} <= set(kinds())
    assert driver_class("replay") is Replay


def test_looking_for_kinds_imports_no_driver() -> None:
    code = (
        "import sys; from drivers.registry import kinds; kinds();"
        "print([m for m in sys.modules if m.startswith(('drivers.imu', 'drivers.audio', 'serial', 'soundfile'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


def test_an_unknown_kind_names_what_there_is() -> None:
    with pytest.raises(
        Misconfigured, match=r"no driver 'imu.witmotoin'; did you mean 'imu.witmotion'\? \(known: audio"
    ):
        driver_class("imu.witmotoin")


@pytest.mark.parametrize("kind", ["", "base", "packet", "lib.framing", "..replay", "imu/witmotion", "os", "imu"])
def test_modules_that_are_no_drivers_are_unknown(kind: str) -> None:
    with pytest.raises(Misconfigured, match="there is no driver"):
        driver_class(kind)


def install(folder: Path, target: str) -> None:
    """A third party's distribution, as pip would leave it."""
    info = folder / "thirdparty-1.0.dist-info"
    info.mkdir()
    (folder / "broken.py").write_text("DRIVER = nowhere\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[axond.drivers]\nvendor.sensor = {target}\n")


def test_third_parties_come_through_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "drivers.replay:DRIVER")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "vendor.sensor" in kinds()
    assert driver_class("vendor.sensor") is Replay


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("no_such_module:DRIVER", "cannot be imported: .*No module named 'no_such_module'"),
        ("drivers.replay:NOTHING", "cannot be imported: .*NOTHING"),
        ("broken:DRIVER", r"cannot be imported: NameError: .*'nowhere'.*; repair or remove package thirdparty"),
        ("pathlib:Path", "expected a subclass of drivers.base.Driver"),
    ],
)
def test_a_broken_third_party_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, sentence: str
) -> None:
    install(tmp_path, target)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Misconfigured, match=sentence):
        driver_class("vendor.sensor")


def test_a_broken_third_party_keeps_no_other_driver_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "broken:DRIVER")
    monkeypatch.syspath_prepend(str(tmp_path))
    found, broken = driver_classes()
    assert set(found) == set(kinds()) - {"vendor.sensor"}
    assert found["replay"] is Replay
    (sentence,) = broken
    assert "driver 'vendor.sensor' (broken:DRIVER) cannot be imported" in sentence
    assert "imu.witmotion" in {kind for kind, _ in streaming()}
