"""One file over HTTP, to the disk; whatever goes wrong is one sentence that says what to do."""

from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from agent.cli.command import CommandError
from models.datasets.public.home import Home
from models.datasets.public.known import MB

TIMEOUT_S = 30.0
"""For an answer, and between two pieces of it."""
CHUNK_BYTES = 1 << 18
GONE = (404, 410, 451)
BY_HAND = "without a network here, download it elsewhere and give the file with --from FILE"


def is_url(source: str) -> bool:
    """Whether ``source`` is to be downloaded; else it names a file."""
    return source.startswith(("https://", "http://"))


def fetch(url: str, path: Path, home: Home, told: Callable[[int, int], None]) -> None:
    """Write what ``url`` gives to the new file ``path``; ``told`` hears bytes done and bytes in all.

    Raises CommandError for what the network does, OSError for the disk.
    """
    done = 0
    with path.open("xb") as file:
        for piece, total in _pieces(url):
            done += len(piece)
            if max(done, total) > home.archive_most_bytes:
                raise CommandError(f"{url}: more than {home.archive_most_bytes // MB} MB; this is not the archive")
            file.write(piece)
            told(done, max(done, total or home.archive_about_bytes))


def _pieces(url: str) -> Iterator[tuple[bytes, int]]:
    """The content in pieces, each with the whole length, 0 where the server does not say."""
    done = 0
    try:
        with urlopen(Request(url, headers={"User-Agent": "axond"}), timeout=TIMEOUT_S) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            while piece := answer.read(CHUNK_BYTES):
                done += len(piece)
                yield piece, total
    except HTTPError as error:
        error.close()
        what = "it is no longer there; give a mirror with --from URL" if error.code in GONE else "try again later"
        raise CommandError(f"{url}: the server answers {error.code} {error.reason}; {what}") from error
    except URLError as error:
        said = getattr(error.reason, "strerror", None) or error.reason
        raise CommandError(f"{url}: cannot be reached ({said}); {BY_HAND}") from error
    except (OSError, HTTPException, ValueError) as error:
        said = str(error) or type(error).__name__
        raise CommandError(f"{url}: broke off after {done} bytes ({said}); try again") from error
    if done < total:
        raise CommandError(f"{url}: broke off after {done} of {total} bytes; try again")
