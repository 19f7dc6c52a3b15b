"""``axond data get``: a dataset from its public home, whole and exact or not at all."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from agent.backup.make import sync_folder
from agent.backup.scratch import scratch
from agent.cli.backup import progress
from agent.cli.command import CommandError, add_json, console, print_json
from agent.cli.data_download import fetch, is_url
from models.datasets.load import cache, find
from models.datasets.public.content import README, Files, contents, digest, write
from models.datasets.public.home import Home
from models.datasets.public.known import KNOWN, MB, Known

DESCRIPTION = """Download the archive of the repository where a dataset is public, at the commit that is pinned in
axond, take the dataset's files out of it and lay them out as axond reads them. A SHA-256 over all recordings is
checked: what is put down is exactly the dataset that the cards of the models speak of, or nothing. One that is there
already is left alone. An interrupted get leaves nothing behind; the next one begins anew.

Licence and credit are in the dataset's README.md. https_proxy is honoured.

Exit codes: 0 it is there, 1 failed, 2 wrong use.

  axond data get audio_fsdd                                    into ~/.cache/axond/data/audio_fsdd
  axond data get audio_fsdd --to /srv/recordings               into /srv/recordings/audio_fsdd; set AXOND_DATA
  axond data list --json | jq -r '.[].url // empty'            what to download for a machine without a network ...
  axond data get audio_fsdd --from 26eb9aaf76e8.tar.gz         ... and how to use it there
"""


def configure(parser: argparse.ArgumentParser) -> None:
    names = [dataset.name for dataset in KNOWN]
    parser.add_argument("name", choices=names, metavar="NAME", help="which, as in 'axond data list'")
    parser.add_argument(
        "--from", dest="source", metavar="FILE|URL", help="the same .tar.gz, downloaded by hand, or at a mirror"
    )
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="put it into FOLDER/NAME (default: ~/.cache/axond/data)"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    dataset = next(dataset for dataset in KNOWN if dataset.name == options.name)
    there = find(dataset.name) if options.to is None else _seen(options.to / dataset.name)
    if dataset.home is None:
        return _told_not(dataset, there, options)
    source = options.source or dataset.home.url
    fetched = there is None
    if there is None:
        there = (cache() if options.to is None else options.to) / dataset.name
        try:
            with _parent(there.parent):
                fetched = _get(dataset, dataset.home, there, source, quiet=options.json)
        except OSError as error:
            raise CommandError(_disk(error, there.parent, dataset.home)) from error
    else:
        _check(there, dataset.home)
    return _say(dataset, there, source if fetched else None, options)


def _seen(path: Path) -> Path | None:
    return path if os.path.lexists(path) else None


def _check(there: Path, home: Home) -> None:
    """Raise CommandError unless the whole dataset is at ``there``; DataError."""
    if not there.is_dir() or digest(contents(there)) != home.digest:
        raise CommandError(
            f"{there} is there, but is not exactly the dataset; move it away, or give another --to FOLDER"
        )


@contextmanager
def _parent(folder: Path) -> Iterator[None]:
    """The folder is there; when nothing came into it, it is gone afterwards, unless it was there before."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _get(dataset: Known, home: Home, goal: Path, source: str, *, quiet: bool) -> bool:
    """Put the dataset at ``goal``; False if another one did meanwhile. Raises CommandError, DataError, OSError."""
    with scratch(goal.parent) as folder:
        archive = Path(source)
        if is_url(source):
            archive = folder / "archive.tar.gz"
            with _bar(dataset.name, quiet=quiet) as told:
                fetch(source, archive, home, told)
        elif not archive.is_file():
            raise CommandError(f"{source}: no such file; expected what {home.url} gives, or a URL with https://")
        with _spinner("checking and packing", quiet=quiet):
            files = home.dataset(archive, source)
            _write(files, readme(dataset, home), folder / dataset.name)
        return _settle(folder / dataset.name, goal, home)


def _write(files: Files, text: str, folder: Path) -> None:
    """A new folder with the dataset and its README.md, on the disk."""
    folder.mkdir()
    write(files, folder)
    with (folder / README).open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def _settle(made: Path, goal: Path, home: Home) -> bool:
    """Move the folder ``made`` to ``goal``; False if the dataset has come there meanwhile."""
    try:
        made.rename(goal)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise
        _check(goal, home)
        return False
    sync_folder(goal.parent)
    return True


def readme(dataset: Known, home: Home) -> str:
    """What goes with the dataset: its source, its licence, whom to credit, what was changed."""
    return f"""# {dataset.name}
- What: {dataset.what}.
- Source: {dataset.origin}, commit {home.commit} ({home.url}).
- Licence: {dataset.licence}. Credit: {dataset.credit}.
- Changes: {home.changes}
- Checked: content SHA-256 {home.digest} (over the lines "sha256(file)  name" in the order of the names).
- Written by `axond data get {dataset.name}`.
"""


def _bar(name: str, *, quiet: bool) -> AbstractContextManager[Callable[[int, int], None]]:
    return nullcontext(lambda done, total: None) if quiet else progress(name)


def _spinner(what: str, *, quiet: bool) -> AbstractContextManager[object]:
    return console(stderr=True).status(what) if sys.stderr.isatty() and not quiet else nullcontext()


def _disk(error: OSError, folder: Path, home: Home) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        room = (home.archive_about_bytes + 50 * MB) // MB
        return (
            f"{folder}: no room left; it takes about {room} MB while it works. Make room, or give another --to FOLDER"
        )
    return f"{error.filename or folder}: cannot be written ({error.strerror or error}); give another --to FOLDER"


def _told_not(dataset: Known, there: Path | None, options: argparse.Namespace) -> int:
    if there is None:
        raise CommandError(
            f"{dataset.name} has no exact public copy: {dataset.why_not}. "
            f"The original is {dataset.origin} (licence: {dataset.licence})"
        )
    return _say(dataset, there, None, options)


def _say(dataset: Known, there: Path, source: str | None, options: argparse.Namespace) -> int:
    if options.json:
        print_json({"name": dataset.name, "path": str(there), "fetched": source is not None, "source": source})
    elif source is None:
        judged = "not compared: it has no public home" if dataset.home is None else "complete"
        print(f"{dataset.name} is already there: {there} ({judged})")
    else:
        print(f"{dataset.name} is in {there}; licence: {dataset.licence}, credit: see its README.md")
        seen = find(dataset.name)
        if seen is None or not seen.samefile(there):
            print(f"axond does not look there by itself: set AXOND_DATA={there.parent.absolute()}, or name the folder")
    return 0
