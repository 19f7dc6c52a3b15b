"""The public home of a dataset, and how the dataset comes out of the archive that is got there."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models.datasets.public import archive
from models.datasets.public.content import Files, digest
from models.datasets.recording import DataError


class Recipe(Protocol):
    """Which files of the source are needed, and what becomes of them; pure, for anything that the files may hold."""

    def wants(self, path: str) -> bool:
        """Whether the file at this path of the source is needed."""

    def remake(self, found: Files) -> dict[str, bytes]:
        """The dataset's content by name (see ``content``). Raises DataError, which says what the archive has or is."""


@dataclass(frozen=True, slots=True)
class Home:
    """A repository on GitHub at one commit."""

    repository: str
    commit: str
    recipe: Recipe
    digest: str
    """``content.digest`` of the dataset. GitHub does not promise that its archives are the same bytes each time."""
    changes: str
    """What differs from the source, for the README.md that goes with the dataset."""
    archive_about_bytes: int
    """Estimated from the number and size of the files there; nobody weighed it."""
    archive_most_bytes: int
    unpacked_most_bytes: int

    @property
    def url(self) -> str:
        """The archive of the whole repository at that commit."""
        return f"https://codeload.github.com/{self.repository}/tar.gz/{self.commit}"

    def dataset(self, path: Path, where: str) -> Files:
        """The dataset out of the archive at ``path``, exactly; the archive may be anybody's.

        Raises DataError, calling the archive ``where``.
        """
        try:
            with gzip.open(path) as stream:
                limits = archive.Limits(self.unpacked_most_bytes)
                files = self.recipe.remake(archive.read(stream, self.recipe.wants, limits, strip=True))
        except (OSError, zlib.error) as error:
            raise DataError(f"{where}: cannot be read as .tar.gz ({error})") from error
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        found = digest(files)
        if found != self.digest:
            raise DataError(
                f"{where}: its recordings are not those of the dataset (SHA-256 {found[:12]}..., "
                f"expected {self.digest[:12]}...); it is of another version, or somebody changed it"
            )
        return files
