"""Where secrets lie: files that the configuration names. Their content never stands in it."""

import os
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from drivers.base import ConfigPath

_SYSTEMD = "%d/"


def _credential(path: Path) -> Path:
    """``%d/name`` is the credential ``name`` of the systemd unit (LoadCredential= and its like), as in unit files."""
    if not str(path).startswith(_SYSTEMD):
        return path
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise PydanticCustomError(
            "credential",
            "is a credential of a systemd unit, but there are none (CREDENTIALS_DIRECTORY is not set): "
            "add LoadCredential= to the unit, or name a file",
        )
    return Path(folder) / str(path)[len(_SYSTEMD) :]


CredentialPath: TypeAlias = Annotated[ConfigPath, AfterValidator(_credential)]
"""A file with a secret, or ``%d/name`` for a systemd credential."""
