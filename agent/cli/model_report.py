"""``axond model report``: one HTML page about a bundle."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.command import CommandError, add_json, check_writable, positive, print_json, write_whole
from agent.cli.model_bench import measure
from models.bundle import Bundle
from models.datasets.load import load
from models.registry import open_bundle
from models.select import load_backend

if TYPE_CHECKING:
    from models.evaluate import Coded


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--data", type=Path, action="append", default=[], metavar="FOLDER", help="labelled recordings, "
                        "as for eval; without them the page tells of sizes and times only")  # fmt: skip
    parser.add_argument("--split", default="test", help="which part of the data (default: test)")
    parser.add_argument("--seconds", type=positive, default=1.0, help="to time each backend (default: 1)")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="page to write (default: NAME.html)")


def run(options: argparse.Namespace) -> int:
    from models import evaluate, report

    bundle = open_bundle(options.bundle, [])
    out: Path = options.out or Path(f"{bundle.manifest.name}.html")
    check_writable(out)
    judged = None
    if options.data:
        coded = _coded(bundle, options.data, options.split)
        _, backend = load_backend(bundle, "auto")
        try:
            judged = coded, evaluate.decide(bundle, backend, coded)
        finally:
            backend.close()
    names = ", ".join(folder.resolve().name for folder in options.data)
    source = f"{names}, part {options.split}" if names else ""
    write_whole(out, report.page(bundle, judged, source, measure(bundle, options.seconds)).encode())
    if options.json:
        print_json({"bundle": bundle.id, "page": str(out)})
    else:
        print(f"{bundle.id}: {out}")
    return 0


def _coded(bundle: Bundle, folders: list[Path], split: str) -> "Coded":
    """The recordings as what the network hears. Raises BadModel, DataError, CommandError."""
    from models.evaluate import code
    from models.evaluate_fused import code_pairs, load_pairs

    if bundle.manifest.inputs is not None:
        return code_pairs(bundle, load_pairs(bundle.manifest, folders, split))[0]
    if bundle.manifest.state != "reset":
        raise CommandError(f"{bundle.id} decides on a stream; leave out --data, and see axond model eval")
    if len(folders) > 1:
        raise CommandError(f"{bundle.id} has one input: give --data once")
    return code(bundle, load(folders[0], split))
