"""``axond model verify``: digests, and the golden vectors on every backend that is here."""

import argparse

from agent.cli.command import add_json, print_json
from models.base import BackendUnavailable, BadModel
from models.registry import backends, open_bundle
from models.select import load_kind


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle, [])
    answers: dict[str, str] = {}
    for kind in backends():
        try:
            load_kind(bundle, kind).close()
            answers[kind] = "identical"
        except BackendUnavailable as error:
            answers[kind] = f"not here: {error}"
        except BadModel as error:
            answers[kind] = f"WRONG: {error}"
    good = not any(answer.startswith("WRONG") for answer in answers.values())
    if options.json:
        print_json({"bundle": bundle.id, "ok": good, "golden_vectors": len(bundle.golden.rasters), "backends": answers})
    else:
        print(f"{bundle.id}: digests hold, {len(bundle.golden.rasters)} golden vectors")
        for kind, answer in answers.items():
            print(f"  {kind}: {answer}")
    return 0 if good else 1
