"""Which of the models that are here fit which sensors. Pure; reads the bundles once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.setup.look import Candidate
from drivers.packet import SensorInfo
from models.base import BadModel
from models.bundle import MANIFEST, Bundle, Part, load
from models.registry import ZOO, describe, fits


@dataclass(slots=True)
class Plan:
    """What the configuration will say."""

    sensors: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> table, ``driver`` first."""
    places: dict[str, str] = field(default_factory=dict)
    """Name -> what it is plugged into."""
    pipelines: dict[str, tuple[list[str], str]] = field(default_factory=dict)
    """Name -> sensors and model."""
    unused: dict[str, str] = field(default_factory=dict)
    """Sensor -> why no pipeline uses it."""


def bundles(folders: Sequence[Path] = ()) -> list[Bundle]:
    """Every sound model, of ``folders`` before the shipped ones of the same name."""
    found: dict[str, Bundle] = {}
    for folder in (*folders, ZOO):
        for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
            try:
                bundle = load(manifest.parent)
            except BadModel:
                continue
            found.setdefault(bundle.manifest.name, bundle)
    return list(found.values())


def add(plan: Plan, candidate: Candidate, variant: int = 0) -> None:
    """The candidate becomes a sensor."""
    plan.sensors[candidate.name] = {"driver": candidate.kind, **candidate.variants[variant]}
    plan.places[candidate.name] = candidate.place


def fitting(infos: Mapping[str, SensorInfo], models: Iterable[Bundle]) -> list[tuple[Bundle, list[str]]]:
    """Models and the sensors for each: every model once for each sensor that fits, one of several inputs once."""
    found: list[tuple[Bundle, list[str]]] = []
    for bundle in models:
        parts = bundle.manifest.parts
        if len(parts) == 1:
            found += [(bundle, [name]) for name, info in infos.items() if fits(parts[0], info)]
        elif order := _assigned(parts, infos):
            found.append((bundle, order))
    return found


def _assigned(parts: Sequence[Part], infos: Mapping[str, SensorInfo]) -> list[str]:
    """A sensor for each input; empty if one has none."""
    order: list[str] = []
    for part in parts:
        chosen = next((name for name, info in infos.items() if name not in order and fits(part, info)), None)
        if chosen is None:
            return []
        order.append(chosen)
    return order


def connect(plan: Plan, chosen: Iterable[tuple[Bundle, list[str]]]) -> None:
    """A pipeline for each, named after its model, and after its sensor where several sensors have that model."""
    pairs = list(chosen)
    names = [bundle.manifest.name for bundle, _ in pairs]
    for bundle, sensors in pairs:
        model = bundle.manifest.name
        name = model if names.count(model) == 1 else f"{model}-{sensors[0]}"
        plan.pipelines[name[:63]] = (sensors, model)


def explain_unused(plan: Plan, infos: Mapping[str, SensorInfo], models: Sequence[Bundle]) -> None:
    """For each sensor without a pipeline: what the nearest model would want."""
    used = {sensor for sensors, _ in plan.pipelines.values() for sensor in sensors}
    for name, info in infos.items():
        if name in used:
            continue
        given = describe(info.family, info.channels, info.rate_hz)
        near = [
            f"{bundle.manifest.name} wants {part.input.rate_hz:g} Hz"
            for bundle in models
            for part in bundle.manifest.parts
            if (part.input.family, part.input.channels) == (info.family, list(info.channels))
        ]
        hint = f"; {', '.join(near)}: set sensor and rate_hz to that" if near else "; axond model build makes one"
        plan.unused[name] = f"no model here takes {given}{hint}"
