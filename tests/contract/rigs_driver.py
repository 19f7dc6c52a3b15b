"""All rigs: the tables ``RIGS`` of the ``rigs_*.py`` beside this file, by kind, or by kind and variant.

A serial sensor's come from its emulator's ``CASES``; a new driver of another sort adds its rig to a table here.
"""

from importlib import import_module
from pathlib import Path

from drivers.registry import kinds
from tests.contract.rig import MakeRig

_HERE = Path(__file__)

RIGS: dict[str, MakeRig] = {
    kind: make
    for path in sorted(_HERE.parent.glob("rigs_*.py"))
    if path != _HERE
    for kind, make in import_module(f"tests.contract.{path.stem}").RIGS.items()
}
WITHOUT = [kind for kind in kinds() if not any(name == kind or name.startswith(f"{kind}.") for name in RIGS)]
"""Drivers that nobody tries."""
