"""``axond data``: which recordings there are, where they are on this machine, and getting those that are public."""

import argparse
from pathlib import Path
from typing import Any

from agent.cli import data_get
from agent.cli.command import Command, add_json, cells, console, print_json
from models.datasets.load import find
from models.datasets.public.known import KNOWN, MB, Known


def _configure(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = sub.add_parser(
        "list", help="every dataset: what, licence, where it is here, and whether get can fetch it"
    )
    add_json(listing)
    listing.set_defaults(act=_list)
    get = sub.add_parser(
        "get",
        help="fetch a dataset from its public home",
        description=data_get.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data_get.configure(get)
    get.set_defaults(act=data_get.run)


def _run(options: argparse.Namespace) -> int:
    code: int = options.act(options)
    return code


def _list(options: argparse.Namespace) -> int:
    found = {dataset.name: find(dataset.name) for dataset in KNOWN}
    if options.json:
        print_json([_row(dataset, found[dataset.name]) for dataset in KNOWN])
        return 0
    from rich.table import Column, Table

    table = Table(Column("name", no_wrap=True), "what", "licence", Column("is in", overflow="fold"), "get")
    for dataset in KNOWN:
        home = dataset.home
        size = "no" if home is None else f"about {max(1, home.archive_about_bytes // MB)} MB"
        place = found[dataset.name]
        table.add_row(*cells(dataset.name, dataset.what, dataset.licence, place.parent if place else "-", size))
    console().print(table)
    print("'axond data get NAME' fetches those with a size (estimated); of the others it says where they are from")
    return 0


def _row(dataset: Known, found: Path | None) -> dict[str, Any]:
    home = dataset.home
    return {
        "name": dataset.name,
        "what": dataset.what,
        "licence": dataset.licence,
        "credit": dataset.credit,
        "origin": dataset.origin,
        "path": None if found is None else str(found),
        "url": None if home is None else home.url,
        "download_about_bytes": None if home is None else home.archive_about_bytes,
        "why_not": dataset.why_not or None,
    }


COMMAND = Command(
    "data",
    "recordings to try, evaluate and train with: which there are, and getting them",
    """The recordings that the models, the demo and the tests use. They are looked for in $AXOND_DATA, in ../shared/data
beside the project, and in ~/.cache/axond/data, where get puts them.

  axond data list
  axond data get audio_fsdd
  axond model eval spoken-digits --data ~/.cache/axond/data/audio_fsdd
""",
    _configure,
    _run,
)
