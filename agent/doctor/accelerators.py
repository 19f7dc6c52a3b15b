"""Which backends can run the models here, and why the others cannot."""

from collections.abc import Iterator
from contextlib import suppress

from agent.cli.accelerators import look as try_backend
from agent.cli.accelerators import survey
from agent.doctor.finding import Finding, Word
from agent.doctor.scene import Scene
from drivers.extras import how_to_install
from models.base import BadModel
from models.bundle import MANIFEST, Bundle, load
from models.registry import AUTO_ORDER, ZOO, backends, find_bundle

DEADLINE_S = 60.0
"""Each is loaded in a process of its own, and a cold vendor's runtime takes seconds."""
EXTRAS = ("akida", "onnx", "tflite")
"""Backends whose libraries are an extra of the same name."""


def look(scene: Scene) -> Iterator[Finding]:
    """Each backend is tried on the golden vectors of the configured models, unless an agent uses the chips now."""
    bundles = _bundles(scene)
    usable: set[str] = set()
    reasons: dict[str, str] = {}
    for kind in backends():
        row = survey(kind) if scene.in_use else try_backend(kind, bundles)
        name = Word(kind) if kind in AUTO_ORDER else kind
        facts: dict[str, object] = {"backend": name, "runtime": Word(row["runtime"]), "reason": row["reason"]}
        if row["usable"]:
            usable.add(kind)
            yield Finding("accelerators.usable", "ok", "{backend} can be used ({runtime}): {reason}", kind, facts=facts)
        else:
            reasons[kind] = row["reason"]
            install = _install(kind)
            yield Finding(
                "accelerators.not_usable",
                "note",
                "{backend} cannot be used: {reason}",
                kind,
                "install it if this device has that chip, or a model needs it",
                ("{install}",) if install else (),
                {**facts, "install": Word(install)},
            )
    yield from _pipelines(scene, usable, reasons)


def _install(kind: str) -> str:
    """The command that brings what a backend needs; empty if there is none."""
    return "axond lava install" if kind == "lava" else how_to_install(kind) if kind in EXTRAS else ""


def _bundles(scene: Scene) -> list[Bundle]:
    """Those of the configured pipelines that can be read, else the shipped ones."""
    named = {pipeline.model for pipeline in scene.settings.pipelines.values() if pipeline.model}
    bundles: list[Bundle] = []
    for model in sorted(named):
        with suppress(BadModel, OSError):  # the check of the configuration tells
            bundles.append(load(find_bundle(model, scene.settings.model_folders)))
    return bundles or [load(manifest.parent) for manifest in sorted(ZOO.glob(f"*/{MANIFEST}"))]


def _pipelines(scene: Scene, usable: set[str], reasons: dict[str, str]) -> Iterator[Finding]:
    for name, pipeline in scene.settings.pipelines.items():
        bad = [kind for kind in pipeline.backend if kind in reasons]
        facts: dict[str, object] = {"pipeline": name, "bad": Word(", ".join(bad))}
        for kind in bad:
            facts["reason"] = reasons[kind]
        if not bad or pipeline.model is None:
            continue
        if "auto" in pipeline.backend or set(pipeline.backend) & usable:
            yield Finding(
                "accelerators.second_choice", "warning",
                "pipeline {pipeline} names {bad}, which cannot be used here ({reason}); another backend does its work",
                f"pipelines.{name}.backend", "install what is missing, or take it out of the list",
                ("axond accelerators",), facts,
            )  # fmt: skip
        else:
            yield Finding(
                "accelerators.none", "problem",
                "pipeline {pipeline} can run on {bad} only, which cannot be used here: {reason}",
                f"pipelines.{name}.backend", 'install what is missing, or add "auto" to the list',
                ("axond accelerators",), facts,
            )  # fmt: skip
