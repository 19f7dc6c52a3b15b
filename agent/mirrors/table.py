"""A table ``[mirrors.NAME]`` of the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from agent.config_files import Files, check_readable, origin, validated
from agent.errors import ConfigError
from agent.mirrors.base import Device, Mirror, MirrorConfig
from agent.mirrors.registry import kinds, mirror_class


@dataclass(frozen=True, slots=True)
class MirrorTable:
    """``[mirrors.NAME]``: the mirror's class and its validated settings."""

    name: str
    kind: str
    mirror: type[Mirror[Any]]
    settings: MirrorConfig

    def make(self, device: Device) -> Mirror[Any]:
        """A new mirror; opens nothing."""
        return self.mirror(self.name, self.settings, device)


def mirror_table(files: Files, name: str, table: dict[str, Any], *, whole: bool = True) -> MirrorTable:
    """Checks the table ``name``; ``whole``: the files that it names are readable as well.

    Raises ConfigError naming file, key path and value.
    """
    where = f"mirrors.{name}"
    path = origin(files, ("mirrors", name))
    settings = dict(table)
    kind = settings.pop("kind", None)
    if not isinstance(kind, str):
        raise ConfigError(f"{path}: {where}.kind: missing; there are {', '.join(kinds())}")
    try:
        mirror = mirror_class(kind)
    except ConfigError as error:
        raise ConfigError(f"{path}: {where}.kind: {error}") from error
    valid = validated(files, where, mirror.Config, settings)
    for key, value in valid:
        if whole and isinstance(value, Path):
            check_readable(path, f"{where}.{key}", value)
    return MirrorTable(name, kind, mirror, valid)


def check_different(path: Path, tables: Mapping[str, MirrorTable]) -> None:
    """ConfigError for two that are the same: as one edge node, say, they would spoil each other's sequence numbers."""
    for one, other in combinations(tables.values(), 2):
        if (one.kind, one.settings) == (other.kind, other.settings):
            raise ConfigError(f"{path}: mirrors.{other.name}: the same as mirrors.{one.name}; take one away")
