"""``axond lava``: a virtual environment of its own for Lava, which needs an older Python than axond."""

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from agent.cli.command import Command, CommandError, add_json, print_json
from models.backends.lava import SYSTEM_HOME, LavaBackend, home, is_there, python
from models.backends.reference import ReferenceBackend
from models.base import ModelError, Trace
from models.network import Layer, Network

PYTHON_VERSION = "3.10"
PACKAGES = ("lava-nc==0.10.0", "numpy<2")
INSTALL_S = 1800.0
ASK_S = 60.0
GOLDEN_STEPS = 40
HIDDEN = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")
"""What ``ProtectHome=`` and ``PrivateTmp=`` hide from the service."""
FETCHED = SYSTEM_HOME.with_name("python")
"""Where uv puts a Python for the service."""
MARK = ".made-by-axond"
"""A file in an environment that ``install`` made, and may make anew."""

_FACTS = """
import importlib.metadata as m, importlib.util as u, json, platform
names = {d.metadata["Name"].lower(): d.version for d in m.distributions()}
print(json.dumps({"python": platform.python_version(), "lava": names.get("lava-nc"), "numpy": names.get("numpy"),
                  "loihi": u.find_spec("lava.magma.compiler.subcompilers.nc") is not None}))
"""


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    install = sub.add_parser("install", help="make the environment, or repair it; does nothing if it works")
    install.set_defaults(act=lambda _: install_lava())
    status = sub.add_parser("status", help="is it there, and does it answer?")
    status.set_defaults(act=_status)
    add_json(status)


def _run(options: argparse.Namespace) -> int:
    code: int = options.act(options)
    return code


def install_lava() -> int:
    """Make the environment, or repair it. Raises CommandError."""
    place = home()
    trouble = _why_hidden(python(place), place) or _trouble() if is_there(place) else None
    if is_there(place) and trouble is None:
        print(f"{place}: Lava is installed and answers as the reference does; nothing to do")
        return 0
    try:
        _check_ours(place, trouble)
    except OSError as error:
        raise CommandError(
            f"{place} cannot be looked at ({error.strerror}); set AXOND_LAVA to a folder of yours"
        ) from error
    print(f"{place}: making a virtual environment with Python {PYTHON_VERSION}", flush=True)
    _make_venv(place)
    print(f"{place}: installing {' and '.join(PACKAGES)} from the package index", flush=True)
    _do([python(place), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], INSTALL_S)
    trouble = _trouble()
    if trouble:
        raise CommandError(f"Lava is installed in {place}, but does not work: {trouble}")
    print(f"{place}: Lava answers as the reference does")
    return 0


def _check_ours(place: Path, trouble: str | None) -> None:
    """Raise CommandError when ``place`` has what is not ours to delete; OSError."""
    if not place.exists() or (place / MARK).exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not (place / "pyvenv.cfg").exists():
        raise CommandError(f"{place} is there, but is no virtual environment: move it away, or set AXOND_LAVA")
    problem = f"Lava does not work in it: {trouble}" if trouble else "it has no Python that runs"
    raise CommandError(
        f"{place} is a virtual environment that axond did not make, and {problem}; repair it, or move it away, or set "
        "AXOND_LAVA to another folder"
    )


def _status(options: argparse.Namespace) -> int:
    place = home()
    facts: dict[str, Any] = {"place": str(place), "python": None, "lava": None, "numpy": None, "loihi": False}
    if not is_there(place):
        trouble: str | None = f"not installed ({place} is not there): axond lava install"
    else:
        facts |= json.loads(_do([python(place), "-E", "-s", "-c", _FACTS], ASK_S))
        trouble = _why_hidden(python(place), place) or _trouble()
    facts["trouble"] = trouble
    if options.json:
        print_json(facts)
    elif trouble:
        print(f"Lava: {trouble}")
    else:
        where = "Loihi 2 extension found" if facts["loihi"] else "simulation; no Loihi 2 extension"
        print(f"Lava {facts['lava']} (Python {facts['python']}, {where}) in {place}: answers as the reference does")
    return 1 if trouble else 0


def _make_venv(place: Path) -> None:
    reasons = []
    for candidate in _pythons():
        hidden = _why_hidden(candidate, place)
        if hidden:
            reasons.append(hidden)
            continue
        try:
            version = _do([candidate, "-c", "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"], ASK_S)
        except CommandError as error:
            reasons.append(str(error))
            continue
        if version.strip() == PYTHON_VERSION:
            _do([candidate, "-m", "venv", "--clear", place], INSTALL_S)
            (place / MARK).touch()
            return
    uv = shutil.which("uv")
    if uv:
        _do([*_uv(uv, place), "venv", "--quiet", "--clear", "--seed", "--python", PYTHON_VERSION, place], INSTALL_S)
        (place / MARK).touch()
        return
    tried = f" ({'; '.join(reasons)})" if reasons else ""
    # Root's default place is the service's; whoever develops as root may not care for the service.
    own = ", or set AXOND_LAVA to a folder that the service need not see" if place == SYSTEM_HOME else ""
    raise CommandError(
        f"Lava needs Python {PYTHON_VERSION} with its venv module, and this machine has none on PATH, in pyenv or "
        f"through uv{tried}: install python{PYTHON_VERSION} and python{PYTHON_VERSION}-venv, or uv, which fetches "
        f"it{own}"
    )


def _uv(uv: str, place: Path) -> list[str]:
    """uv, told to fetch a Python that the service can run when the environment is for it."""
    if place != SYSTEM_HOME:
        return [uv]
    return ["env", f"UV_PYTHON_INSTALL_DIR={FETCHED}", "UV_PYTHON_PREFERENCE=only-managed", uv]


def _why_hidden(interpreter: str | Path, place: Path) -> str | None:
    """Why the service could not run ``interpreter`` for the environment at ``place``; None if it can, or need not."""
    if place != SYSTEM_HOME:
        return None
    homes = [os.path.realpath(interpreter)]  # never raises, unlike Path.resolve
    with suppress(CommandError):
        homes.append(_do([interpreter, "-E", "-s", "-c", "import sys; print(sys.base_prefix)"], ASK_S).strip())
    for real in homes:
        for folder in HIDDEN:
            if Path(real).is_relative_to(folder):
                return f"{real} lies below {folder}, which the service does not see"
    return None


def _pythons() -> Iterator[str]:
    """Interpreters that may be the right one."""
    found = shutil.which(f"python{PYTHON_VERSION}")
    if found:
        yield found
    root = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))  # noqa: PTH111  # never raises
    yield from map(str, sorted(root.glob(f"versions/{PYTHON_VERSION}*/bin/python{PYTHON_VERSION}"), reverse=True))


def _do(command: Sequence[str | Path], limit_s: float) -> str:
    """Run a program; what it printed. Raises CommandError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{command[0]} has not ended after {limit_s:.0f} s") from error
    except OSError as error:
        raise CommandError(f"{command[0]} cannot be started ({error.strerror})") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise CommandError(f"{command[0]} failed ({lines[-1].strip() if lines else done.returncode})")
    return done.stdout


def _trouble() -> str | None:
    """Run one neuron on Lava and on the reference: why they do not agree to the bit, None if they do."""
    neuron = Layer(
        name="neuron",
        w_in=np.array([[90, -70, 50]], np.int8),
        w_rec=np.array([[-20]], np.int8),
        k_u=np.array([2800], np.int32),
        k_v=np.array([3900], np.int32),
        bias=np.zeros(1, np.int32),
        v_th=np.array([500], np.int32),
    )
    raster = (np.random.default_rng(1).random((GOLDEN_STEPS, 3)) < 0.3).astype(np.uint8)
    found, expected = Trace.empty(GOLDEN_STEPS, (1,)), Trace.empty(GOLDEN_STEPS, (1,))
    lava, reference = LavaBackend(), ReferenceBackend()
    reference.load_network(Network((neuron,)))
    reference.infer(raster, trace=expected)
    try:
        lava.load_network(Network((neuron,)), "one neuron")
        lava.infer(raster, trace=found)
    except ModelError as error:
        return str(error)
    finally:
        lava.close()
    differing = found.differing_cells(expected)
    return f"{differing} cells of one neuron differ from the reference" if differing else None


COMMAND = Command(
    "lava",
    "install Lava (Loihi) beside axond, and look whether it works",
    f"""Lava runs a model on Loihi 2, or in a bit-accurate simulation of it. It needs Python {PYTHON_VERSION} and gets
a virtual environment of its own: ~/.local/share/axond/lava, for root /opt/axond/lava, or where AXOND_LAVA says.

  axond lava install            or: axond extras install lava
  axond lava status
""",
    _configure,
    _run,
)
