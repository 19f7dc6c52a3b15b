"""``axond extras``: which there are, and where the package and a virtual environment put them. The network is not used:
pip finds a wheel made here."""

import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from agent.__main__ import main
from agent.cli import extras
from drivers.extras import MARK, how_to_install, place

TREE = Path(__file__).parents[2]
PACKAGES = Path(sysconfig.get_paths()["purelib"])
LAUNCH = "import sys; from agent.__main__ import main; sys.exit(main())"
NOT_FOR_DEVICES = {"train", "dev"}
ROOMS = ("agent", "drivers", "hil", "models")


def wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    """A package of one module."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as made:
        facts = f"{name}-{version}.dist-info"
        made.writestr(f"{name}.py", f'version = "{version}"\n')
        needed = f"Requires-Dist: {needs}\n" if needs else ""
        made.writestr(f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        made.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{facts}/RECORD", "")


class Device:
    """An environment as the package makes it, and an index with two versions of what ``extra`` wants."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.wheels = folder / "axond", folder / "wheels"
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = self.home / "lib" / python / "site-packages"
        site.mkdir(parents=True)
        (self.home / "bin").mkdir()
        self.python = self.home / "bin" / "python3"
        self.python.symlink_to(Path(sys.executable).resolve())
        home = Path(sys.executable).resolve().parent
        (self.home / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = true\n")
        (site / MARK).write_text("".join(f"../../../extras/{python}/{name}\n" for name in extras.ABOUT))
        # The program: this tree, the libraries of this environment, and a fact sheet that asks for made packages.
        (site / "tree.pth").write_text(f"{TREE}\n{PACKAGES}\n")
        (site / "axond-1.0.dist-info").mkdir()
        asked = (
            "Provides-Extra: locate\nRequires-Dist: made_scipy>=1 ; python_version > \"3.1\" and extra == 'locate'\n"
        )
        (site / "axond-1.0.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: axond\nVersion: 1.0\n{asked}")
        (self.home / "constraints.txt").write_text("made_numpy==1 \\\n    --hash=sha256:00\n")
        self.folder = self.home / "extras" / python / "locate"
        wheel(self.wheels, "made_numpy", "1")
        wheel(self.wheels, "made_numpy", "2")
        wheel(self.wheels, "made_scipy", "1", "made_numpy")
        for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(self.wheels)), ("CONFIG_FILE", "/dev/null")):
            monkeypatch.setenv(f"PIP_{name}", value)

    def axond(self, *arguments: str) -> tuple[int, str, str]:
        command = [str(self.python), "-I", "-c", LAUNCH, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def state(self) -> str:
        _, said, _ = self.axond("extras", "list", "--json")
        found: dict[str, str] = {each["name"]: each["state"] for each in json.loads(said)["extras"]}
        return found["locate"]


def test_every_extra_of_the_project_is_told_of() -> None:
    text = (TREE / "pyproject.toml").read_text()
    table = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    declared = {*re.findall(r"(?m)^(\w+) = \[", table)}
    assert declared - NOT_FOR_DEVICES == {*extras.ABOUT} - {"lava"}


def test_what_an_extra_asks_for_has_no_mark_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [
        "numpy>=1.24",
        "akida<2.20,>=2.19; python_version < '3.13' and extra == 'akida'",
        "sqlalchemy>=2.0; extra == 'hub'",
        'axond[hub]; extra == "postgres"',
        "psycopg[binary]>=3.1; extra == 'postgres'",
    ]
    monkeypatch.setattr(extras.metadata, "requires", lambda _: told)
    assert extras.requirements("akida") == ["akida<2.20,>=2.19; python_version < '3.13'"]
    assert extras.requirements("postgres") == ["sqlalchemy>=2.0", "psycopg[binary]>=3.1"]
    assert extras.requirements("events") == []


def test_the_package_puts_an_extra_beside_itself_and_takes_it_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path, monkeypatch)
    code, said, error = device.axond("extras", "install", "locate")
    assert (code, error) == (0, "")
    assert f"{device.folder}: installing made_scipy==1\n" in said
    # What the program brings itself is neither there twice nor in another version.
    assert sorted(path.name for path in device.folder.glob("*.py")) == ["made_scipy.py"]
    assert device.state() == "installed"
    # One that cannot be had leaves what there was.
    (device.home / "constraints.txt").write_text("made_scipy==4\n")
    code, _, error = device.axond("extras", "install", "locate")
    assert code == 1
    assert error.startswith("axond: pip failed: ")
    assert error.count("\n") == 1
    assert sorted(path.name for path in device.folder.parent.iterdir()) == ["locate"]
    look = [device.python, "-I", "-c", "import made_scipy; print(made_scipy.version)"]
    assert subprocess.run(look, capture_output=True, text=True, check=False).stdout == "1\n"
    assert device.axond("extras", "remove", "locate") == (0, f"{device.folder}: removed\n", "")
    gone = f"axond: locate is not installed in {device.folder}\n"
    assert device.axond("extras", "remove", "locate") == (1, "", gone)


def test_a_virtual_environment_removes_with_pip(capsys: pytest.CaptureFixture[str]) -> None:
    assert place() is None
    assert main(["extras", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*extras.ABOUT]
    assert main(["extras", "remove", "locate"]) == 1
    assert "pip uninstall" in capsys.readouterr().err


def test_what_is_missing_is_installed_in_the_way_of_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert how_to_install("akida") == "pip install 'axond[akida]'"
    assert how_to_install("onnx", "tflite") == "pip install 'axond[onnx,tflite]'"
    device = Device(tmp_path, monkeypatch)
    program = 'from drivers.extras import how_to_install; print(how_to_install("onnx", "tflite"))'
    done = subprocess.run([device.python, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "sudo axond extras install onnx tflite\n", done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_no_message_decides_by_itself_how_an_extra_is_installed(room: str) -> None:
    own = TREE / "drivers" / "extras.py"
    told = [path for path in (TREE / room).rglob("*.py") if path != own and "axond[" in path.read_text()]
    assert told == [], "ask drivers.extras.how_to_install"


def test_an_unknown_extra_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extras", "install", "scipy"]) == 2
    assert "invalid choice: 'scipy'" in capsys.readouterr().err
