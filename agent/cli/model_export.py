"""``axond model export``: the artefact of a bundle for one target, as a file of its own."""

import argparse
from pathlib import Path

from agent.cli.command import CommandError, write_whole
from drivers.extras import how_to_install
from models.bundle import Bundle
from models.registry import open_bundle

FILES = {"onnx": "model.onnx", "tflite": "model.tflite", "nir": "network.nir", "npz": "network.npz"}
"""Target to the file in the bundle."""
WINDOW = "onnx-window"
TARGETS = (*FILES, WINDOW)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target",
        required=True,
        choices=TARGETS,
        help="onnx, tflite: one time step, state in and out; onnx-window: a whole window; nir: the float graph; "
        "npz: the integers. Akida and Lava have no file: their backends map the integers when they load",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="to write; must not exist")


def run(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle, [])
    content = _content(bundle, options.target)
    if options.out.exists():
        raise CommandError(f"{options.out} exists; name a new file")
    write_whole(options.out, content)
    print(f"{options.out}: {options.target} of {bundle.id}, {len(content)} bytes")
    return 0


def _content(bundle: Bundle, target: str) -> bytes:
    if target != WINDOW:
        return bundle.artefact(FILES[target])
    try:
        from models.compile.onnx import compile_window
    except ImportError as error:
        raise CommandError(f"this target needs more packages: {how_to_install('build')} ({error})") from error
    return compile_window(bundle.network)
