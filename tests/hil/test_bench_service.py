"""The size of the package, as ``axond bench service`` tells it."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli.command import CommandError
from hil.bench.service import DEB_ARCHITECTURES, installed, measure, package

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")
NAME = f"axond_1.0_{DEB_ARCHITECTURES.get(platform.machine())}.deb"


def test_without_a_package_the_reason_is_told(tmp_path: Path) -> None:
    found = package(tmp_path)
    assert found["package_mib"] is found["installed_mib"] is None and "make deb" in found["package_left_out"]


def test_a_package_has_two_sizes(tmp_path: Path) -> None:
    control = tmp_path / "tree" / "DEBIAN" / "control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: axond\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@x.org>\n"
        "Installed-Size: 2048\nDescription: x\n"
    )
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tmp_path / "tree", tmp_path / NAME],
        check=True,
        capture_output=True,
    )
    assert package(tmp_path) == {"package": NAME, "package_mib": 0.0, "installed_mib": 2.0}


def test_what_is_no_axond_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="/bin/true is no axond"):
        measure(1.0, 1, Path("/bin/true"))
    with pytest.raises(CommandError, match="absent cannot be started: No such file"):
        measure(1.0, 1, tmp_path / "absent")


def test_a_program_of_no_package_has_no_size(tmp_path: Path) -> None:
    found = installed(tmp_path / "axond")
    assert found["package"] is found["installed_mib"] is None
    assert found["package_left_out"] == f"{tmp_path / 'axond'} is of no package"


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("nonsense")
    with pytest.raises(CommandError, match="is no package"):
        package(tmp_path)
