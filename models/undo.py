"""Undo what a bundle was taught: its parent, byte by byte as it was."""

import hashlib
from pathlib import Path

from models import bundle
from models.base import BadModel
from models.bundle import Bundle
from models.untrusted import read_npz

PARENT = "parent.npz"
"""In a child: every file of the parent as an array of bytes."""


def undo(child: Bundle, out: Path) -> Bundle:
    """Write the parent of ``child`` to ``out``, byte by byte what it was. Raises BadModel."""
    parent = child.manifest.parent
    if parent is None or PARENT not in child.manifest.files:
        raise BadModel(f"{child.path}: was not taught anything: it has no parent to go back to")
    where = str(child.path / PARENT)
    files = {name: array.tobytes() for name, array in read_npz(child.artefact(PARENT), where).items()}
    found = hashlib.sha256(files.get(bundle.MANIFEST, b"")).hexdigest()
    if found != parent.digest:
        raise BadModel(
            f"{where}: keeps a manifest with SHA-256 {found[:12]}..., not {parent.digest[:12]}... of the parent"
        )
    return bundle.place(out, files)
