"""Find encoders, backends and bundles. The file name is the registration; third parties use entry points."""

import importlib
import importlib.util
import re
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from drivers.packet import SensorInfo
from models.base import Backend, BackendUnavailable, BadModel, Encoder
from models.bundle import MANIFEST, Bundle, load

ZOO = Path(__file__).parent / "zoo"
AUTO_ORDER = ("akida", "lava", "onnx", "tflite", "reference")
"""What ``backend = "auto"`` tries, in this order, of what is there."""


def _files(folder: str) -> list[str]:
    return sorted(p.stem for p in (Path(__file__).parent / folder).glob("*.py") if p.stem != "__init__")


def _find(folder: str, kind: str, attribute: str) -> Any:
    """``attribute`` of ``models/<folder>/<kind>.py``, or of an entry point ``axond.<folder>``; None if absent."""
    if re.fullmatch(r"[a-z][a-z0-9_]*", kind) and kind in _files(folder):
        return getattr(importlib.import_module(f"models.{folder}.{kind}"), attribute)
    for entry in entry_points(group=f"axond.{folder}", name=kind):
        return entry.load()
    return None


def backends() -> list[str]:
    """The kinds that are there, ours first in the order of ``auto``."""
    ours = [kind for kind in AUTO_ORDER if kind in _files("backends")]
    return ours + [entry.name for entry in entry_points(group="axond.backends") if entry.name not in ours]


def encoders() -> list[str]:
    """The kinds of encoder that are there."""
    return _files("encoders") + [entry.name for entry in entry_points(group="axond.encoders")]


def make_backend(kind: str) -> Backend:
    """A new, unloaded backend. Raises BackendUnavailable for an unknown kind."""
    found = _find("backends", kind, "BACKEND")
    if found is None:
        raise BackendUnavailable(f"unknown backend {kind!r}; there are {', '.join(backends())}")
    backend: Backend = found()
    return backend


def make_encoder(bundle: Bundle, info: SensorInfo) -> Encoder:
    """The bundle's encoder for a sensor. Raises BadModel if kind or settings are wrong or the sensor does not fit."""
    manifest = bundle.manifest
    wanted = manifest.input
    where = bundle.path / MANIFEST
    if (info.family, list(info.channels), info.rate_hz) != (wanted.family, wanted.channels, wanted.rate_hz):
        raise BadModel(
            f"model {manifest.name!r} wants {_describe(wanted.family, wanted.channels, wanted.rate_hz)}, "
            f"but the sensor gives {_describe(info.family, info.channels, info.rate_hz)}"
        )
    settings = dict(manifest.encoder)
    kind = settings.pop("kind", None)
    found = _find("encoders", kind, "ENCODER") if isinstance(kind, str) else None
    if found is None:
        raise BadModel(f"{where}: encoder.kind: unknown encoder {kind!r}; there are {', '.join(encoders())}")
    try:
        config = found.Config(**settings)
    except ValueError as error:
        raise BadModel(f"{where}: encoder: {error}") from error
    encoder: Encoder = found(config, info, manifest.window.samples)
    if encoder.shape[1] != bundle.network.features:
        raise BadModel(
            f"{where}: the encoder gives {encoder.shape[1]} features, the network takes {bundle.network.features}"
        )
    return encoder


def _describe(family: str, channels: object, rate_hz: float) -> str:
    names = list(channels) if isinstance(channels, (list, tuple)) else []
    return f"{family} of {len(names)} channel{'s' * (len(names) != 1)} ({', '.join(names)}) at {rate_hz:g} Hz"


def find_bundle(name: str, folders: list[Path]) -> Path:
    """The folder of the bundle called ``name`` (or the path ``name``, if it has a slash). Raises BadModel."""
    if "/" in name:
        return Path(name)
    places = [*folders, ZOO]
    for place in places:
        if (place / name / MANIFEST).is_file():
            return place / name
    known = sorted({p.parent.name for place in places for p in place.glob(f"*/{MANIFEST}")})
    close = get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise BadModel(f"no model {name!r}; there are {', '.join(known) or 'none'}{hint}")


def open_bundle(name: str, folders: list[Path]) -> Bundle:
    """Find, read and verify a bundle. Raises BadModel."""
    return load(find_bundle(name, folders))
