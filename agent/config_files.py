"""What is behind the configuration: its files, and sentences that say which of them is wrong where."""

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from agent.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

M = TypeVar("M", bound=BaseModel)

Files: TypeAlias = list[tuple[Path, dict[str, Any]]]
"""The main file and the drop-ins, in the order in which they are merged."""


def read_all(path: Path) -> Files:
    """``path`` and the drop-ins ``<path>.d/*.toml`` in the order of their names. Raises ConfigError."""
    return [(file, _read(file)) for file in (path, *_drop_ins(path))]


def _drop_ins(path: Path) -> list[Path]:
    folder = path.parent / f"{path.name}.d"
    try:
        return sorted(file for file in folder.iterdir() if file.suffix == ".toml")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read ({error.strerror})") from error


def origin(files: Files, keys: tuple[int | str, ...]) -> Path:
    """The file that said last what stands at ``keys``; the main file for what nobody said."""
    for file, document in reversed(files):
        at: Any = document
        for key in keys:
            at = at.get(key, at) if isinstance(at, dict) and key in at else None
            if at is None or not isinstance(at, dict):
                break
        if at is not None:
            return file
    return files[0][0]


def parse_toml(text: str) -> dict[str, Any]:
    """``ValueError`` for what is no TOML."""
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("arrays or tables too deep inside each other") from error
    return document


def _read(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); write one, or name another with --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` wins, table by table."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def check_readable(path: Path, where: str, file: Path) -> None:
    """ConfigError unless ``file``, named at ``where`` in ``path``, can be opened."""
    try:
        file.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{path}: {where}: {file} cannot be read ({error.strerror})") from error


def validated(files: Files, where: str, model: type[M], table: dict[str, Any]) -> M:
    """The table at ``where`` as ``model``. Raises ConfigError naming file, key path and value."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise ConfigError(_sentence(files, where, error, model)) from error


def _sentence(files: Files, prefix: str, error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem as one sentence with its key path and value."""
    problem = error.errors()[0]
    path = origin(files, (*(prefix.split(".") if prefix else ()), *problem["loc"]))
    keys = [prefix, *map(str, problem["loc"])]
    where = ".".join(key for key in keys if key)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, problem["loc"][:-1])
        name = str(problem["loc"][-1])
        return f"{path}: {where}: unknown key; known here: {', '.join(known)}{hint(name, known)}"
    if problem["type"] == "missing":
        return f"{path}: {where}: missing"
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # a sentence about several keys
        return f"{path}: {where}: {problem['ctx']['error']}"
    return f"{path}: {where}: {problem['msg']}; found {problem['input']!r}"


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at ``loc`` below ``model``."""
    for key in loc:
        field = model.model_fields.get(str(key))
        inner = field.annotation if field else None
        candidates = [inner, *getattr(inner, "__args__", ())]
        tables = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if tables:
            model = tables[0]
    return list(model.model_fields)


def hint(name: str, known: list[str]) -> str:
    """``; did you mean ...?`` if one of those that there are is close, else nothing."""
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
