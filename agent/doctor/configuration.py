"""Is the configuration right? All that is wrong is told, and what is right is used for the other checks."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.composition import open_bundles, open_locators
from agent.config import Config, parse
from agent.config_files import Files, merge, read_all
from agent.doctor.finding import Finding, Word
from agent.doctor.scene import Scene, asked, runner, there
from agent.errors import ConfigError
from models.base import BadModel
from models.bundle import MANIFEST
from models.bundle import load as load_bundle
from models.registry import find_bundle

NAMED = ("sensors", "pipelines", "mirrors")
"""Tables of tables: each of these is right or wrong by itself."""
WITH_FILES = ("uplink", "mirrors")
"""They name files with secrets; what else they say is used also where those cannot be read."""
CREDENTIAL = "%d/"

DEADLINE_S = 30.0
"""Every byte of the models is read."""

Unit = tuple[str, ...]


def set_up(path: Path, root: Path = Path("/"), *, named: bool = True) -> Scene:
    """Reads the configuration and asks the agent that may run with it. Raises nothing for what is wrong with them.

    ``named``: the file was asked for; the one that a machine has by default may be missing.
    """
    wrong: list[Finding] = []
    files: Files = [(path, {})]
    if named or there(path):
        try:
            files = read_all(path)
        except ConfigError as error:
            wrong.append(_file_finding(path, str(error)))
    else:
        wrong.append(
            Finding(
                "config.none",
                "note",
                "there is no configuration yet: {path}",
                str(path),
                "write one, or let axond find the sensors and write it",
                ("sudo axond setup", "axond sensors list"),
                {"path": str(path)},
            )
        )
    settings, errors = right_part(path, files)
    wrong += [_unit_finding(path, unit, files, str(error)) for unit, error in errors]
    document = _merged(files)
    status, mute = asked(settings.device.state_dir)
    user = runner(settings.device.state_dir, root, running=status is not None)
    return Scene(path, settings, document, tuple(wrong), status, mute, user, root)


def right_part(path: Path, files: Files) -> tuple[Config, list[tuple[Unit, ConfigError]]]:
    """The configuration without the tables that are wrong, and why each of them is."""
    document = _merged(files)
    chosen: list[Unit] = []
    errors: list[tuple[Unit, ConfigError]] = []
    settings = parse(path, _only(files, chosen))
    for unit in sorted(_units(document), key=lambda unit: unit[0] == "pipelines"):
        if unit[0] == "pipelines" and _needs(document, unit) & {bad[-1] for bad, _ in errors if bad[0] == "sensors"}:
            continue
        try:
            settings = parse(path, _only(files, [*chosen, unit]), whole=False)
            chosen.append(unit)
            if unit[0] in WITH_FILES:
                parse(path, _only(files, [unit]))
        except ConfigError as error:
            errors.append((unit, error))
    return settings, errors


def _units(document: dict[str, Any]) -> Iterator[Unit]:
    for key, value in document.items():
        if key in NAMED and isinstance(value, dict):
            yield from ((key, name) for name in value)
        else:
            yield (key,)


def _needs(document: dict[str, Any], unit: Unit) -> set[str]:
    """The sensors of a pipeline."""
    table = document["pipelines"][unit[1]] if len(unit) == 2 else {}
    sensors = table.get("sensors") if isinstance(table, dict) else None
    return {name for name in sensors if isinstance(name, str)} if isinstance(sensors, list) else set()


def _only(files: Files, units: list[Unit]) -> Files:
    """The files with these tables alone."""
    return [(file, _part(document, units)) for file, document in files]


def _part(document: dict[str, Any], units: list[Unit]) -> dict[str, Any]:
    part: dict[str, Any] = {}
    for unit in units:
        value = document.get(unit[0])
        if len(unit) == 1:
            part |= {unit[0]: value} if unit[0] in document else {}
        elif isinstance(value, dict) and unit[1] in value:
            part.setdefault(unit[0], {})[unit[1]] = value[unit[1]]
    return part


def _file_finding(path: Path, sentence: str) -> Finding:
    if "cannot be read (Permission denied)" in sentence:
        return Finding(
            "permissions.config", "problem", "{sentence}", str(path), "look as root, or as a member of its group",
            ("sudo axond doctor --config {path}",), {"sentence": sentence, "path": str(path)},
        )  # fmt: skip
    return Finding(
        "config.file",
        "problem",
        "{sentence}",
        str(path),
        "correct the file at the line that is named, then look again",
        ("axond check --config {path}",),
        {"sentence": sentence, "path": str(path)},
    )


def _unit_finding(path: Path, unit: Unit, files: Files, sentence: str) -> Finding:
    place = sentence.partition(": ")[2].partition(": ")[0]
    where = place if place.split(".")[0] == unit[0] else ".".join(unit)
    facts: dict[str, object] = {"sentence": sentence, "path": str(path)}
    absent = "CREDENTIALS_DIRECTORY" in sentence or "cannot be read" in sentence
    if absent and _uses_credentials(_part(_merged(files), [unit])):
        return Finding(
            "config.credentials",
            "note",
            "{sentence}",
            where,
            "credentials of a unit exist while it runs, for its user and root: look as root while the service runs",
            ("sudo systemctl start axond", "sudo axond doctor --config {path}"),
            facts,
        )
    if "cannot be read (Permission denied)" in sentence and os.geteuid() != 0:
        return _not_yours(where, facts)
    return Finding(
        "config.wrong",
        "problem",
        "{sentence}",
        where,
        "correct this key; the agent refuses to start with it (exit code 78)",
        ("axond check --config {path}",),
        facts,
    )


def _not_yours(where: str, facts: dict[str, object]) -> Finding:
    return Finding(
        "config.not_yours",
        "warning",
        "{sentence}",
        where,
        "if it is meant for the user of the service alone, look as root",
        ("sudo axond doctor --config {path}",),
        facts,
    )


def _merged(files: Files) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _, part in files:
        document = merge(document, part)
    return document


def _uses_credentials(value: object) -> bool:
    if isinstance(value, dict):
        return any(_uses_credentials(inner) for inner in value.values())
    return isinstance(value, str) and value.startswith(CREDENTIAL)


def look(scene: Scene) -> Iterator[Finding]:
    """The tables, and the models that the pipelines name."""
    yield from scene.wrong
    settings = scene.settings
    if not scene.wrong:
        facts = {"sensors": len(settings.sensors), "pipelines": len(settings.pipelines), "path": str(scene.path)}
        yield Finding(
            "config.right", "ok", "{sensors} sensors, {pipelines} pipelines: every key is right", str(scene.path),
            facts=facts,
        )  # fmt: skip
    yield from _nothing_to_do(scene)
    for name in settings.pipelines:
        yield from _model(settings, name)


def _nothing_to_do(scene: Scene) -> Iterator[Finding]:
    """A configuration with which no result is ever made."""
    tables = {finding.where.partition(".")[0] for finding in scene.wrong}
    facts = {"path": str(scene.path)}
    if scene.document and not scene.settings.sensors and not scene.wrong:
        yield Finding(
            "config.no_sensor", "note", "{path} has no sensor: the agent runs, and waits for its configuration",
            str(scene.path), "add a table [sensors.NAME], or let axond find the sensors and write it",
            ("axond sensors list", "sudo axond setup"), facts,
        )  # fmt: skip
    elif scene.settings.sensors and not scene.settings.pipelines and "pipelines" not in tables:
        yield Finding(
            "config.no_pipeline", "warning", "{path} has sensors, but no pipeline: no result is ever made",
            str(scene.path), "add a table [pipelines.NAME] with sensors and a model", ("sudo axond setup",), facts,
        )  # fmt: skip


def _model(settings: Config, name: str) -> Iterator[Finding]:
    where = f"pipelines.{name}.model"
    pipeline = settings.pipelines[name]
    alone = replace(settings, pipelines={name: pipeline})
    facts: dict[str, object] = {"path": str(settings.path), "model": pipeline.model or ""}
    if pipeline.model is not None:
        folder = None
        try:
            folder = find_bundle(pipeline.model, settings.model_folders)
            facts["folder"] = str(folder)
            load_bundle(folder)
        except PermissionError as error:
            yield _not_yours(where, {**facts, "sentence": str(error)})
            return
        except (BadModel, OSError) as error:
            facts["sentence"] = str(error)
            if folder is None or not there(folder / MANIFEST):
                yield Finding(
                    "config.model_missing", "problem", "{sentence}", where,
                    "name a model that is there, or put its folder below models/ in device.state_dir",
                    ("axond check --config {path}",), facts,
                )  # fmt: skip
            else:
                yield Finding(
                    "model.damaged", "problem", "{sentence}", where,
                    "the bundle is not what it was when it was made: copy it anew, then verify it",
                    ("axond model verify {folder}",), facts,
                )  # fmt: skip
            return
    try:
        bundles = open_bundles(alone)
        open_locators(alone)
    except ConfigError as error:
        facts["sentence"] = str(error)
        yield Finding(
            "config.model_misfit", "problem", "{sentence}", where,
            "give the pipeline a sensor or a model that fits", ("axond check --config {path}",), facts,
        )  # fmt: skip
        return
    shown = bundles[name].id if name in bundles else Word("sonar-locate")
    yield Finding("model.whole", "ok", "model {model} is whole and fits its sensors", where, facts={"model": shown})
