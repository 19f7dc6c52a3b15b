"""Where secrets lie: files that the configuration names. Their content never stands in it."""

import os
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator

from drivers.base import ConfigPath

_SYSTEMD = "%d/"
UNIT_FOLDER: Final = Path("/run/credentials/axond.service")
SOURCE_FOLDER: Final = Path("/etc/axond/credentials")
SOURCE_PREFIX = "axond_"
"""axond.service has ``LoadCredential=axond:/etc/axond/credentials``: its FILE is the credential axond_FILE."""


def _credential(path: Path) -> Path:
    """``%d/name`` is the credential ``name`` of the systemd unit (LoadCredential= and its like), as in unit files.

    Outside the unit, for people: that of the running service, else the file that the service would load. Both are for
    root's eyes.
    """
    if not str(path).startswith(_SYSTEMD):
        return path
    name = str(path)[len(_SYSTEMD) :]
    if folder := os.environ.get("CREDENTIALS_DIRECTORY"):
        return Path(folder) / name
    running = UNIT_FOLDER / name
    if name.startswith(SOURCE_PREFIX) and not os.access(running, os.F_OK):
        return SOURCE_FOLDER / name[len(SOURCE_PREFIX) :]
    return running


CredentialPath: TypeAlias = Annotated[ConfigPath, AfterValidator(_credential)]
"""A file with a secret, or ``%d/name`` for a systemd credential."""
