"""How libraries are installed that axond can use and does not bring: beside the package, or with pip."""

import os
import sys
from pathlib import Path

MARK = "axond-extras.pth"
"""The package's list of folders on the path, one per extra; who finds it beside axond is the package."""


def place() -> Path | None:
    """The folder with one folder per extra, beside the program that the package brought; None without a package."""
    for folder in map(Path, sys.path):
        list_ = folder / MARK
        if list_.is_file():
            first = list_.read_text().splitlines()[0]
            return Path(os.path.normpath(folder / first)).parent
    return None


def how_to_install(*names: str) -> str:
    """The command for these extras, as a person types it."""
    return f"sudo axond extras install {' '.join(names)}" if place() else f"pip install 'axond[{','.join(names)}]'"
