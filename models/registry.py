"""Find encoders, backends and bundles. The file name is the registration; third parties use entry points."""

import importlib
import importlib.util
import re
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from drivers.packet import SensorInfo
from models.base import Backend, BackendUnavailable, BadModel, Encoder, ModelError, StreamEncoder
from models.bundle import MANIFEST, Bundle, Manifest, Part, first_error, load

_ENCODER_GROUPS = {"ENCODER": "axond.encoders", "STREAM": "axond.stream_encoders"}
ZOO = Path(__file__).parent / "zoo"
AUTO_ORDER = ("akida", "lava", "onnx", "tflite", "reference")
"""What ``backend = "auto"`` tries, in this order, of what is there.

A third party's is used where it is named (``backend = ["mychip", "auto"]``): to install a package must not change what
the devices in the field decide with.
"""


def _files(folder: str) -> list[str]:
    return sorted(p.stem for p in (Path(__file__).parent / folder).glob("*.py") if p.stem != "__init__")


def _find(folder: str, kind: str, attribute: str, problem: type[ModelError], group: str) -> Any:
    """``attribute`` of ``models/<folder>/<kind>.py``, or an entry point of ``group``; None if absent.

    Raises ``problem`` for an entry point that cannot be imported.
    """
    if re.fullmatch(r"[a-z][a-z0-9_]*", kind) and kind in _files(folder):
        return getattr(importlib.import_module(f"models.{folder}.{kind}"), attribute, None)
    for entry in entry_points(group=group, name=kind):
        try:
            return entry.load()
        except Exception as error:
            # Other people's code raises what it likes; all of it becomes one sentence.
            package = f"package {entry.dist.name}" if entry.dist else "its package"
            raise problem(
                f"{folder.removesuffix('s')} {kind!r} ({entry.value}) cannot be imported: {type(error).__name__}: "
                f"{error}; repair or remove {package}"
            ) from error
    return None


def backends() -> list[str]:
    """The kinds that are there, ours first in the order of ``auto``."""
    ours = [kind for kind in AUTO_ORDER if kind in _files("backends")]
    return ours + [entry.name for entry in entry_points(group="axond.backends") if entry.name not in ours]


def encoders(attribute: str = "ENCODER") -> list[str]:
    """The kinds of encoder that are there, for windows; with ``STREAM``, for streams."""
    ours = [
        kind for kind in _files("encoders") if hasattr(importlib.import_module(f"models.encoders.{kind}"), attribute)
    ]
    return ours + [entry.name for entry in entry_points(group=_ENCODER_GROUPS[attribute])]


def find_backend(kind: str) -> Any:
    """What the module or the entry point ``kind`` has. Raises BackendUnavailable if there is none or it is broken."""
    found = _find("backends", kind, "BACKEND", BackendUnavailable, "axond.backends")
    if found is None:
        raise BackendUnavailable(f"unknown backend {kind!r}; there are {', '.join(backends())}")
    return found


def make_backend(kind: str) -> Backend:
    """A new, unloaded backend. Raises BackendUnavailable for an unknown kind, and for a third party's broken one."""
    found = find_backend(kind)
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise BackendUnavailable(f"backend {kind!r} is {found!r}, expected a subclass of models.base.Backend")
    try:
        return found()
    except Exception as error:
        # Other people's code raises what it likes; a class that is still abstract cannot be made either.
        raise BackendUnavailable(f"backend {kind!r} cannot be made: {type(error).__name__}: {error}") from error


def find_encoder(kind: str, attribute: str = "ENCODER") -> Any:
    """The class of an encoder; None if there is none of that kind. Raises BadModel if it cannot be imported."""
    return _find("encoders", kind, attribute, BadModel, _ENCODER_GROUPS[attribute])


def make_encoder(bundle: Bundle, info: SensorInfo) -> Encoder:
    """The bundle's encoder for a sensor. Raises BadModel if kind or settings are wrong or the sensor does not fit."""
    return encoder_for(bundle.manifest, bundle.network.features, info, str(bundle.path / MANIFEST))


def encoder_for(manifest: Manifest, features: int, info: SensorInfo, where: str) -> Encoder:
    """The same for a manifest that is in no bundle (yet), and a network of so many features. Raises BadModel."""
    encoder = part_encoder(manifest.name, manifest.sole, info, where)
    _check_features(encoder.shape[1], features, where)
    return encoder


def part_encoder(model: str, part: Part, info: SensorInfo, where: str) -> Encoder:
    """The encoder of one input of the model called ``model``, whatever the network takes. Raises BadModel."""
    found, config = _encoder_class(model, part, info, "ENCODER", where)
    if part.window is None:
        raise BadModel(f"{where}: decides on a stream, step by step; it has no windows")
    encoder: Encoder = found(config, info, part.window.samples)
    return encoder


def make_stream_encoder(bundle: Bundle, info: SensorInfo) -> StreamEncoder:
    """The same for a bundle that decides on a stream. Raises BadModel."""
    return stream_encoder_for(bundle.manifest, bundle.network.features, info, str(bundle.path / MANIFEST))


def stream_encoder_for(manifest: Manifest, features: int, info: SensorInfo, where: str) -> StreamEncoder:
    """As ``encoder_for``. Raises BadModel."""
    found, config = _encoder_class(manifest.name, manifest.sole, info, "STREAM", where)
    encoder: StreamEncoder = found(config, info)
    _check_features(encoder.features, features, where)
    return encoder


def encoder_settings(kind: str, attribute: str = "ENCODER") -> Any:
    """The pydantic model of an encoder's settings. Raises BadModel for an unknown kind."""
    found = _find("encoders", kind, attribute, BadModel, _ENCODER_GROUPS[attribute])
    if found is None:
        purpose = "windows" if attribute == "ENCODER" else "a stream (state 'carry')"
        raise BadModel(f"no encoder {kind!r} for {purpose}; there are {', '.join(encoders(attribute))}")
    return found.Config


def fits(part: Part, info: SensorInfo) -> bool:
    """Whether the sensor is what this input of a model was made for. Events carry their own time: no rate matters."""
    wanted = part.input
    same_rate = info.rate_hz == wanted.rate_hz or info.family == "event_camera"
    return (info.family, list(info.channels)) == (wanted.family, wanted.channels) and same_rate


def _encoder_class(model: str, part: Part, info: SensorInfo, attribute: str, where: str) -> tuple[Any, Any]:
    """The class of an encoder and its configuration."""
    if not fits(part, info):
        wanted = part.input
        raise BadModel(
            f"model {model!r} wants {describe(wanted.family, wanted.channels, wanted.rate_hz)}, "
            f"but the sensor gives {describe(info.family, info.channels, info.rate_hz)}"
        )
    settings = dict(part.encoder)
    kind = settings.pop("kind", None)
    try:
        if not isinstance(kind, str):
            raise BadModel("expected the name of an encoder")
        config = encoder_settings(kind, attribute).model_validate(settings)
    except BadModel as error:
        raise BadModel(f"{where}: encoder.kind: {error}") from error
    except ValidationError as error:
        raise BadModel(f"{where}: encoder: {first_error(error)}") from error
    return _find("encoders", kind, attribute, BadModel, _ENCODER_GROUPS[attribute]), config


def _check_features(given: int, wanted: int, where: str) -> None:
    if given != wanted:
        raise BadModel(f"{where}: the encoder gives {given} features, the network takes {wanted}")


def describe(family: str, channels: object, rate_hz: float) -> str:
    """A sensor in a few words."""
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
