"""``axond model undo``: the bundle that another one was before it was taught something."""

import argparse
from pathlib import Path

from models.registry import open_bundle
from models.undo import undo


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the parent goes")


def run(options: argparse.Namespace) -> int:
    parent = undo(open_bundle(options.bundle, []), options.out)
    print(f"{parent.path}: {parent.id} as it was, SHA-256 {parent.digest[:12]}... holds")
    return 0
