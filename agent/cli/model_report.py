"""``axond model report``: one HTML page about a bundle."""

import argparse
from pathlib import Path

from agent.cli.command import CommandError, add_json, positive, print_json, write_whole
from agent.cli.model_bench import measure
from models.datasets.load import load
from models.registry import open_bundle
from models.select import load_backend


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="labelled recordings, as for eval; without them "
                        "the page tells of sizes and times only")  # fmt: skip
    parser.add_argument("--split", default="test", help="which part of the data (default: test)")
    parser.add_argument("--seconds", type=positive, default=1.0, help="to time each backend (default: 1)")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="page to write (default: NAME.html)")


def run(options: argparse.Namespace) -> int:
    from models import evaluate, report

    bundle = open_bundle(options.bundle, [])
    judged = None
    if options.data is not None:
        if bundle.manifest.state != "reset":
            raise CommandError(f"{bundle.id} decides on a stream; leave out --data, and see axond model eval")
        coded = evaluate.code(bundle, load(options.data, options.split))
        _, backend = load_backend(bundle, "auto")
        try:
            judged = coded, evaluate.decide(bundle, backend, coded)
        finally:
            backend.close()
    source = f"{options.data.resolve().name}, part {options.split}" if options.data else ""
    out: Path = options.out or Path(f"{bundle.manifest.name}.html")
    write_whole(out, report.page(bundle, judged, source, measure(bundle, options.seconds)).encode())
    if options.json:
        print_json({"bundle": bundle.id, "page": str(out)})
    else:
        print(f"{bundle.id}: {out}")
    return 0
