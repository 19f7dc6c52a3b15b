"""Somebody else's package, as pip leaves it on the path."""

import shutil
from collections.abc import Mapping
from pathlib import Path

EXAMPLE = Path(__file__).with_name("mychip.py")
"""The example of the README."""
MYCHIP = {
    "axond.backends": {"mychip": "mychip:BACKEND"},
    "axond.encoders": {"near": "mychip:ENCODER"},
    "axond.stream_encoders": {"near": "mychip:STREAM"},
}


def install(folder: Path, groups: Mapping[str, Mapping[str, str]] | None = None, name: str = "thirdparty") -> None:
    """Install the example, with the entry points ``groups`` or its own. ``folder`` is or will be on the path."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, entries in (groups or MYCHIP).items():
        lines += [f"[{group}]", *(f"{kind} = {target}" for kind, target in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    shutil.copy(EXAMPLE, folder / "mychip.py")
