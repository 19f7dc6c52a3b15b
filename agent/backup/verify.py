"""Reads a backup to its end and believes it only then."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from agent.backup.archive import CONFIG, HEAD, STATE, SUMS, BackupError, Head, members

MAX_CONFIG_BYTES = 16 << 20
"""Of the files of the configuration together: they are held in memory."""
_SUM = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(slots=True)
class Contents:
    """A backup whose sums are right."""

    path: Path
    head: Head
    config: dict[str, bytes] = field(default_factory=dict)
    """Name below ``config/`` -> content."""
    modes: dict[str, int] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)
    state_bytes: int = 0


def verify(path: Path) -> Contents:
    """Reads all of a backup. Raises BackupError if anything in it is not as it was written."""
    found: Contents | None = None
    told: dict[str, str] = {}
    for member in members(path):
        if member.name == HEAD:
            found = Contents(path, Head.parse(member.content(path), path))
        elif found is None:
            raise BackupError(f"{path} is no backup of axond")
        elif member.name == SUMS:
            told = _sums(member.content(path), path)
            continue
        elif member.name.startswith(STATE):
            found.state_bytes += member.size
        else:
            found.config[member.name.removeprefix("config/")] = member.content(path)
            if sum(map(len, found.config.values())) > MAX_CONFIG_BYTES:
                raise BackupError(f"{path}: the configuration in it is larger than {MAX_CONFIG_BYTES} bytes")
        for _ in member.chunks:
            pass
        found.sums[member.name] = member.sha256
        found.modes[member.name] = member.mode
    if found is None or CONFIG not in found.sums:
        raise BackupError(f"{path} is no backup of axond: it has no configuration")
    differing = next((name for name, sum_ in found.sums.items() if told.get(name) != sum_), None)
    if differing is not None or told.keys() != found.sums.keys():
        what = differing or next(iter(told.keys() - found.sums.keys()))
        raise BackupError(f"{path} is damaged: {what} is not as it was written")
    return found


def _sums(content: bytes, path: Path) -> dict[str, str]:
    lines = content.decode("utf-8", "replace").splitlines()
    matches = [_SUM.fullmatch(line) for line in lines]
    if not all(matches):
        raise BackupError(f"{path} is damaged: {SUMS} in it")
    return {match[2]: match[1] for match in matches if match}
