"""``axond model export``: the artefact of a bundle for one target, as a file of its own."""

import argparse
import os
from pathlib import Path

from agent.cli.command import CommandError
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
    try:
        with options.out.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise CommandError(f"{options.out} exists; name a new file") from error
    except OSError as error:
        raise CommandError(f"{options.out}: cannot be written ({error.strerror})") from error
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
