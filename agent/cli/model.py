"""``axond model``: build bundles, look into them, verify, measure and compare them."""

import argparse

from agent.cli import (
    model_bench,
    model_build,
    model_diff,
    model_eval,
    model_export,
    model_info,
    model_report,
    model_teach,
    model_undo,
    model_verify,
)
from agent.cli.command import Command

NAMED = "a model's name (spoken-digits, activity) or a bundle's folder (with a '/')"


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    build = sub.add_parser(
        "build", help="make a bundle of a NIR graph", description=model_build.DESCRIPTION, formatter_class=raw
    )
    info = sub.add_parser("info", help="what a bundle is, takes and costs, and which targets can run it")
    verify = sub.add_parser("verify", help="digests, and the golden vectors on every backend that is here")
    evaluate = sub.add_parser("eval", help="accuracy on a folder of labelled recordings")
    bench = sub.add_parser("bench", help="time of a step on every backend that is here")
    export = sub.add_parser("export", help="write the artefact for one target")
    report = sub.add_parser("report", help="one HTML page: accuracy, scores, spikes, times")
    teach = sub.add_parser(
        "teach",
        help="a new label, or one more user, from a few examples",
        description=model_teach.DESCRIPTION,
        formatter_class=raw,
    )
    undo = sub.add_parser("undo", help="what a bundle was before it was taught something")
    diff = sub.add_parser("diff", help="what differs between two bundles")
    for action in (info, verify, evaluate, bench, export, report, teach, undo):
        action.add_argument("bundle", help=NAMED)
    diff.add_argument("first", help=NAMED)
    diff.add_argument("second", help="the other one")
    for action, module in (
        (build, model_build), (info, model_info), (verify, model_verify), (evaluate, model_eval),
        (bench, model_bench), (export, model_export), (diff, model_diff), (report, model_report),
        (teach, model_teach), (undo, model_undo),
    ):  # fmt: skip
        module.configure(action)
        action.set_defaults(act=module.run)


def _run(options: argparse.Namespace) -> int:
    code: int = options.act(options)
    return code


COMMAND = Command(
    "model",
    "build, look into, verify, evaluate and compare models",
    """Work with bundles: a model with its encoder, labels, digests and golden vectors.

  axond model build net.nir --encoder imu_delta --window 128/64 --labels walk,run,rest -o ./mine
  axond model info spoken-digits
  axond model verify spoken-digits
  axond model eval spoken-digits --data ../shared/data/audio_fsdd --split test
  axond model report spoken-digits --data ../shared/data/audio_fsdd -o digits.html
  axond model diff activity ./mine
""",
    _configure,
    _run,
)
