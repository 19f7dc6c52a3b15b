"""Every driver's rig: the tables ``RIGS`` of the ``rigs_*.py`` beside this file; a new driver adds its rig to one."""

from importlib import import_module
from pathlib import Path

from tests.contract.rig import MakeRig

_HERE = Path(__file__)

RIGS: dict[str, MakeRig] = {
    kind: make
    for path in sorted(_HERE.parent.glob("rigs_*.py"))
    if path != _HERE
    for kind, make in import_module(f"tests.contract.{path.stem}").RIGS.items()
}
