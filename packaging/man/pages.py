"""Write the manual pages axond(1) and axond.toml(5) into a folder: ``pages.py FOLDER VERSION``.

Both are made of what the program itself says: of ``--help``, and of the classes that check the configuration.
"""

import argparse
import ast
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pydantic import BaseModel

from agent import config
from agent.__main__ import make_parser
from agent.mirrors.registry import kinds, mirror_class
from drivers.registry import driver_classes

WIDTH = 76
NAME = "axond \\- turns sensors and a neuromorphic chip into a perception node"
NAME_TOML = "axond.toml \\- configuration of axond"
AROUND = """\
.SH FILES
.TP
.I /etc/axond/axond.toml
The configuration, see
.BR axond.toml (5);
drop-ins are in
.IR /etc/axond/axond.toml.d .
.TP
.I /etc/axond/credentials
Secrets, a file each, which systemd hands to the agent.
.TP
.I /var/lib/axond
Results that wait for delivery, and models that the fleet sent.
.TP
.I /opt/axond
The program; in
.I /opt/axond/extras
what
.B axond extras
installed, which survives upgrades.
.SH EXIT STATUS
0: done. 1: failed. 2: wrong usage. 78: the configuration, or a model that it names, is wrong; systemd does not
start the agent again. 130: interrupted.
.SH SEE ALSO
.BR axond.toml (5),
.BR systemctl (1),
.BR journalctl (1)
"""
ABOUT_TOML = """\
.SH DESCRIPTION
The configuration is one TOML file,
.I /etc/axond/axond.toml
unless
.B \\-\\-config
names another, and drop-ins in the folder of the same name with
.B .d
behind it, merged in the order of their names. It is read once, at the start. An unknown key, another type or a value
out of range is an error that names file, key and value, and
.B axond check
finds it without touching a device. Relative paths are relative to the folder that axond is started in.
"""


def text(words: str) -> str:
    """``words`` as roff shows them: nothing is a request, an escape or another sign."""
    escaped = (
        words.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\`").replace("'", "\\(aq").replace("^", "\\(ha")
    )
    return re.sub(r"(?m)^(?=[.'])", "\\&", escaped.replace("~", "\\(ti"))


def header(title: str, section: int, version: str, name: str) -> str:
    return f'.TH {title} {section} "" "axond {version}" "axond"\n.SH NAME\n{name}\n'


def commands_page(version: str) -> str:
    """axond(1): each command with what its ``--help`` says."""
    parser = make_parser()
    parts = [header("AXOND", 1, version, NAME), ".SH SYNOPSIS\n.B axond\n.I COMMAND\n[\\fIoptions\\fR]\n"]
    parts += [".SH DESCRIPTION\n", _as_is(parser.description or ""), ".SH COMMANDS\n"]
    for path, each in _commands(parser):
        parts += [f".SS {text(path)}\n", _as_is(each.format_help())]
    return "".join([*parts, AROUND])


def _as_is(words: str) -> str:
    return f".nf\n{text(words.rstrip())}\n.fi\n"


def _commands(parser: argparse.ArgumentParser, path: str = "axond") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield f"{path} {name}", sub
                yield from _commands(sub, f"{path} {name}")


def settings_page(version: str) -> str:
    """axond.toml(5): each table with its keys."""
    parts = [header("AXOND.TOML", 5, version, NAME_TOML), ABOUT_TOML, ".SH TABLES\n"]
    for name, field in config._Document.model_fields.items():
        table = _table_class(field.annotation)
        if table is not None:
            parts += [f".SS [{text(name)}]\n", keys(table)]
        elif name == "pipelines":
            parts += [".SS [pipelines.NAME]\n", keys(config.PipelineTable)]
            parts += [".SS [pipelines.NAME.locate]\n", keys(config.LocateTable)]
    parts += [".SH SENSORS\nEach is a table \\fB[sensors.NAME]\\fR with \\fBdriver\\fR and the keys of that driver.\n"]
    for kind, driver in sorted(driver_classes()[0].items()):
        parts += [f".SS driver = \\(dq{text(kind)}\\(dq\n", keys(driver.Config)]
    parts += [".SH MIRRORS\nEach is a table \\fB[mirrors.NAME]\\fR with \\fBkind\\fR and the keys of that kind.\n"]
    for kind in sorted(kinds()):
        parts += [f".SS kind = \\(dq{text(kind)}\\(dq\n", keys(mirror_class(kind).Config)]
    return "".join([*parts, ".SH SEE ALSO\n.BR axond (1)\n"])


def _table_class(annotation: Any) -> type[BaseModel] | None:
    """The table itself, also where it may be missing; None for a dictionary of tables."""
    several = () if get_origin(annotation) is dict else get_args(annotation)
    found = (each for each in (annotation, *several) if isinstance(each, type) and issubclass(each, BaseModel))
    return next(found, None)


def keys(model: type[BaseModel]) -> str:
    """A paragraph for each key of a table: type, bounds, default, and what its docstring says."""
    about = inspect.cleandoc(model.__doc__ or "").removesuffix(".")
    about = re.sub(r"^``\[[^]]*\]``[;:]?\s*", "", about)
    schema = model.model_json_schema()
    notes = _notes(model)
    parts = [f"{text(_plain(about[0].upper() + about[1:]))}.\n"] if about else []
    for key, facts in schema.get("properties", {}).items():
        told = [_type(facts, schema.get("$defs", {}))]
        if key in schema.get("required", ()):
            told.append("needed")
        elif facts.get("default") not in (None, [], {}):
            told.append(f"default {_shown(facts['default'])}")
        parts.append(
            f'.TP\n.BR {text(key)} " ({text(", ".join(told))})"\n{text(_plain(notes.get(key, ""))) or ".br"}\n'
        )
    return "".join(parts) or "No keys.\n"


def _plain(words: str) -> str:
    """A docstring without its marks."""
    return " ".join(words.replace("``", "").split())


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(facts: dict[str, Any], others: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in facts:
        return _type(others[facts["$ref"].rsplit("/", 1)[1]], others)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in facts:
            return " or ".join(_type(each, others) for each in facts[several] if each.get("type") != "null")
    if "enum" in facts or "const" in facts:
        return ", ".join(map(str, facts.get("enum", [facts.get("const")])))
    kind = str({"object": "table"}.get(facts.get("type", "any"), facts.get("type", "any")))
    if kind == "array":
        return f"array of {_type(facts['items'], others)}" if "items" in facts else "array"
    if facts.get("format") == "path":
        kind = "path"
    bounds = [
        f"{words} {facts[name]}"
        for name, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if name in facts
    ]
    return " ".join([kind, *bounds])


def _notes(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings under the keys, those of base classes included."""
    notes: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if not issubclass(each, BaseModel) or each is BaseModel:
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        lines = body.body if isinstance(body, ast.ClassDef) else []
        for line, below in pairwise(lines):
            if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                notes[line.target.id] = str(below.value.value)
    return notes


def main() -> int:
    # argparse wraps for the terminal it finds; a page is the same wherever it is made.
    os.environ["COLUMNS"] = str(WIDTH)
    folder, version = Path(sys.argv[1]), sys.argv[2]
    (folder / "axond.1").write_text(commands_page(version))
    (folder / "axond.toml.5").write_text(settings_page(version))
    return 0


if __name__ == "__main__":
    sys.exit(main())
