"""``axond extras``: libraries that are not for everybody, into a place that an upgrade of axond leaves alone."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from agent.backup.scratch import scratch
from agent.cli import lava
from agent.cli.command import Command, CommandError, add_json, print_json
from drivers.extras import place
from models.backends.lava import home as lava_home
from models.backends.lava import is_there as lava_is_there

ABOUT = {
    "akida": "BrainChip's Akida chips and their software model (proprietary: by installing it you accept its licence)",
    "alsa": "microphones (compiled here: needs gcc, python3-dev and libasound2-dev)",
    "build": "axond model build, from NIR",
    "events": "event cameras on USB, and their recordings",
    "hub": "the hub's database",
    "lava": "Loihi 2 through Lava, and Lava's simulation of it (an environment of its own with Python 3.10)",
    "locate": "positions from echoes",
    "mavlink": "flight controllers",
    "onnx": "models on ONNX Runtime",
    "parquet": "axond outbox export --format parquet",
    "postgres": "the hub on PostgreSQL",
    "tflite": "models on LiteRT",
}
CONSTRAINTS = Path(sys.prefix) / "constraints.txt"
INSTALL_S = 1800.0
RECORD = "extra.json"


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = sub.add_parser("list", help="which there are, and which are here")
    listed.set_defaults(act=_list)
    add_json(listed)
    install = sub.add_parser("install", help="install some, or renew them")
    install.add_argument("names", nargs="+", choices=ABOUT, metavar="NAME", help=", ".join(ABOUT))
    install.set_defaults(act=_install)
    remove = sub.add_parser("remove", help="remove some")
    remove.add_argument("names", nargs="+", choices=ABOUT, metavar="NAME", help=", ".join(ABOUT))
    remove.set_defaults(act=_remove)


def _run(options: argparse.Namespace) -> int:
    code: int = options.act(options)
    return code


def _list(options: argparse.Namespace) -> int:
    facts = [{"name": name, "about": about, "state": _state(name)} for name, about in ABOUT.items()]
    if options.json:
        print_json({"place": str(place() or sys.prefix), "extras": facts})
        return 0
    for each in facts:
        print(f"{each['name']:<9} {each['state']:<14} {each['about']}")
    return 0


def _state(name: str) -> str:
    if name == "lava":
        return "installed" if lava_is_there(lava_home()) else "not installed"
    folders = place()
    if folders is not None and (folders / name).is_dir():
        return "installed"
    there = [_is_met(each) for each in requirements(name)]
    return "in the program" if folders is not None and all(there) else "installed" if all(there) else "not installed"


def _is_met(requirement: str) -> bool:
    try:
        metadata.version(_distribution(requirement))
    except metadata.PackageNotFoundError:
        return False
    return True


def _distribution(requirement: str) -> str:
    """``scipy>=1.10`` -> ``scipy``."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def requirements(name: str) -> list[str]:
    """What the extra ``name`` asks for, as pip takes it; other extras of axond are written out."""
    found: list[str] = []
    for line in metadata.requires("axond") or ():
        requirement, _, marker = line.partition(";")
        of = re.search(r"""\bextra == ['"]([a-z]+)['"]""", marker)
        if of is None or of[1] != name:
            continue
        own = re.fullmatch(r"axond\[([a-z,]+)\]", requirement.strip())
        if own:
            found += [each for other in own[1].split(",") for each in requirements(other)]
            continue
        rest = re.sub(r"""(^|\s+and\s+)\(?extra == ['"][a-z]+['"]\)?\s*$""", "", marker.strip())
        found.append(f"{requirement.strip()}; {rest}" if rest else requirement.strip())
    return found


def _install(options: argparse.Namespace) -> int:
    for name in options.names:
        if name == "lava":
            lava.install_lava()
        elif (folders := place()) is not None:
            _into_folder(name, folders)
        else:
            _into_environment(name)
    print("A running agent sees it after: systemctl restart axond")
    return 0


def _into_environment(name: str) -> None:
    if sys.prefix == sys.base_prefix:
        raise CommandError(
            f"{sys.executable} belongs to the system, where nothing is installed by hand: put axond into a virtual "
            "environment (pipx install axond), or install its package"
        )
    print(f"{sys.prefix}: installing {name}: {', '.join(requirements(name))}", flush=True)
    _pip("install", "--quiet", *requirements(name))


def _into_folder(name: str, folders: Path) -> None:
    """Whole or not at all: pip fills a new folder, which then takes the old one's place. Raises CommandError."""
    if not os.access(folders.parent.parent if not folders.exists() else folders, os.W_OK):
        raise CommandError(f"{folders / name} cannot be written by you: sudo axond extras install {name}")
    folders.mkdir(parents=True, exist_ok=True)
    with scratch(folders) as folder:
        made = folder / name
        missing = _missing(name, folder / "report.json")
        print(f"{folders / name}: installing {' '.join(missing)}", flush=True)
        _pip("install", "--quiet", "--no-deps", "--target", made, *missing)
        made.mkdir(exist_ok=True)
        (made / RECORD).write_text(json.dumps({"extra": name, "packages": missing}))
        made.chmod(0o755)
        if (folders / name).exists():
            (folders / name).rename(folder / "old")
        made.rename(folders / name)


def _missing(name: str, report: Path) -> list[str]:
    """The versions that the program does not bring itself, chosen so that they fit those it brings."""
    wanted = requirements(name)
    locked = {_canonical(line.split("==")[0]) for line in CONSTRAINTS.read_text().splitlines() if "==" in line}
    plain = re.sub(r"\s*\\\n\s+--hash=\S+", "", CONSTRAINTS.read_text())
    bounds = report.with_name("constraints.txt")
    bounds.write_text(plain)
    _pip("install", "--quiet", "--dry-run", "--ignore-installed", "--report", report, "--constraint", bounds, *wanted)
    found = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    return [f"{each['name']}=={each['version']}" for each in found if _canonical(each["name"]) not in locked]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _pip(*arguments: str | Path) -> None:
    """pip of the Python that runs axond. Raises CommandError."""
    if find_spec("pip") is None:
        raise CommandError(f"{sys.executable} has no pip: apt install python3-pip")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"pip has not ended after {INSTALL_S:g} s; is the network slow? Try again") from error
    if done.returncode:
        raise CommandError(f"pip failed: {_reason(done.stderr or done.stdout)}")


def _reason(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it says nothing"])[-1]


def _remove(options: argparse.Namespace) -> int:
    folders = place()
    for name in options.names:
        if name == "lava":
            folder = lava_home()
            there = lava_is_there(folder) and (folder / lava.MARK).exists()
        elif folders is None:
            raise CommandError(f"in this environment pip removes: {sys.executable} -m pip uninstall ...")
        else:
            folder, there = folders / name, (folders / name).is_dir()
        if not there:
            raise CommandError(f"{name} is not installed in {folder}")
        _delete(folder)
        print(f"{folder}: removed")
    return 0


def _delete(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except PermissionError as error:
        raise CommandError(f"{folder} cannot be removed by you: sudo axond extras remove {folder.name}") from error


COMMAND = Command(
    "extras",
    "libraries that are not for everybody: akida, lava, locate ...",
    """List, install and remove libraries that axond can use and does not bring. With the package of a distribution they
go below /opt/axond/extras, which upgrades leave alone; in a virtual environment pip puts them there. Versions are
chosen so that they fit the libraries that the package brings. Needs the network, and python3-pip.

  axond extras list
  sudo axond extras install akida
  sudo axond extras remove akida
""",
    _configure,
    _run,
)
