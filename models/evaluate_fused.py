"""Accuracy of a bundle that fuses sensors: recordings paired by label, through the live windows and encoders."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from drivers.packet import Packet, SensorInfo
from models.base import Backend, BadModel, Raster
from models.bundle import Bundle, Manifest
from models.datasets.load import load
from models.datasets.recording import LEAD_IN_S, DataError, Recording
from models.evaluate import Coded, Evaluation, decide, summary
from models.fused import FusedEncoder, make_fused_encoder, mean_quality, missing
from models.joint import JointWindower
from models.registry import describe, fits

PAIRING_SEED = 1
BEGIN_NS = 1_000_000_000
"""Capture time at which recordings begin; before it there is silence."""

Pair = tuple[Recording | None, ...]
"""A recording of each input, in the order of the inputs; None for one that is unplugged."""


@dataclass(frozen=True, slots=True)
class JointRaster:
    """What a live pipeline would ask the network, and how much of the inputs that rests on."""

    raster: Raster
    quality: float
    missing: tuple[str, ...]
    encoder_us: float


@dataclass(frozen=True, slots=True)
class FusedEvaluation(Evaluation):
    """Of pairs, in the place of recordings."""

    quality: float
    """Mean of those in which a window began."""


def evaluate_fused(bundle: Bundle, backend: Backend, pairs: Sequence[Pair]) -> FusedEvaluation:
    """Cut, encode and infer every pair as a live pipeline would. Raises BadModel if a recording does not fit."""
    coded, quality = code_pairs(bundle, pairs)
    found = summary(coded, decide(bundle, backend, coded))
    return FusedEvaluation(**{one.name: getattr(found, one.name) for one in fields(found)}, quality=quality)


def code_pairs(bundle: Bundle, pairs: Sequence[Pair]) -> tuple[Coded, float]:
    """The windows of ``pairs`` as ``bundle`` wants them, and their mean quality. A pair's group is the first that one
    of its recordings has. Raises BadModel."""
    infos = _infos(bundle.manifest, pairs)
    encoder = make_fused_encoder(bundle, infos)
    joints = [live_joint(bundle.manifest, infos, encoder, pair) for pair in pairs]
    labels = [next(r.label for r in pair if r is not None) for pair in pairs]
    unknown = sorted(set(labels) - set(bundle.manifest.labels))
    if unknown:
        raise BadModel(f"the data has labels that {bundle.id} does not know: {', '.join(unknown)}")
    found = [joint for joint in joints if joint is not None]
    coded = Coded(
        rasters=np.stack([np.zeros(encoder.shape, np.uint8) if joint is None else joint.raster for joint in joints]),
        labels=labels,
        groups=[next((r.group for r in pair if r is not None and r.group), "") for pair in pairs],
        heard=np.array([joint is not None for joint in joints]),
        encoder_us=float(np.median([joint.encoder_us for joint in found])) if found else 0.0,
    )
    return coded, float(np.mean([joint.quality for joint in found])) if found else 0.0


def live_joint(
    manifest: Manifest, infos: Sequence[SensorInfo], encoder: FusedEncoder, pair: Pair, offsets_s: Sequence[float] = ()
) -> JointRaster | None:
    """The first window that a live pipeline would cut from recordings that begin together; None when none begins.

    ``offsets_s``: how much later than the others each of them begins. Raises BadModel if a recording does not fit.
    """
    windower = JointWindower(manifest, infos)
    live = [recording is not None for recording in pair]
    # Time passes in silence before anything begins.
    windower.due(BEGIN_NS - round(LEAD_IN_S * 1e9) + windower.late_ns, live)
    for i, recording in enumerate(pair):
        if recording is None:
            continue
        begin_ns = BEGIN_NS + (round(offsets_s[i] * 1e9) if offsets_s else 0)
        windower.push(i, _packet(recording, begin_ns, windower.length_ns))
    joints = windower.due(BEGIN_NS + 1000 * windower.length_ns, live)
    if not joints:
        return None
    raster: Raster = np.zeros(encoder.shape, np.uint8)
    start_ns = time.perf_counter_ns()
    parts = encoder.encode(joints[0].shares, raster)
    took_us = (time.perf_counter_ns() - start_ns) / 1e3
    return JointRaster(raster, mean_quality(parts), missing(manifest, parts), took_us)


def _packet(recording: Recording, begin_ns: int, length: int) -> Packet:
    """The whole recording, with digital silence around it where it has samples."""
    data, info = recording.data, recording.info
    if info.family == "event_camera":
        data = data.copy()
        data["t_ns"] += begin_ns - (int(data["t_ns"][0]) if len(data) else 0)
        return Packet(recording.name, 0, begin_ns, 0, data)
    dt_ns = round(1e9 / info.rate_hz)
    before = np.zeros((round(LEAD_IN_S * info.rate_hz), data.shape[1]), data.dtype)
    after = np.zeros((2 * length // dt_ns, data.shape[1]), data.dtype)
    return Packet(recording.name, 0, begin_ns - len(before) * dt_ns, dt_ns, np.concatenate([before, data, after]))


def pair_by_label(lists: Sequence[Sequence[Recording]], seed: int = PAIRING_SEED) -> list[tuple[Recording, ...]]:
    """Recordings of each input with one label: all of the longest list, the others as often as it takes.

    Each list is shuffled by ``seed`` within its label, and goes from its beginning again at its end. Raises DataError
    where a label is in one list and not in another.
    """
    rng = np.random.default_rng(seed)
    labels = list(dict.fromkeys(recording.label for recordings in lists for recording in recordings))
    pairs = []
    for label in sorted(labels):
        mine = [[r for r in recordings if r.label == label] for recordings in lists]
        if not all(mine):
            absent = next(i for i, found in enumerate(mine) if not found)
            raise DataError(f"label {label!r} has no recording for input {absent}; give data of the same labels")
        shuffled = [[found[i] for i in rng.permutation(len(found))] for found in mine]
        for k in range(max(map(len, mine))):
            pairs.append(tuple(found[k % len(found)] for found in shuffled))
    return pairs


def load_pairs(manifest: Manifest, folders: Sequence[Path], split: str, without: Sequence[str] = ()) -> list[Pair]:
    """Recordings for every input from ``folders``, in any order, or from the folders in the only one; paired by label.

    The inputs ``without`` are None: as if unplugged. Raises DataError.
    """
    names = [part.name for part in manifest.parts]
    for name in without:
        if name not in names:
            raise DataError(f"--without {name}: {manifest.name} has no such input; there are {', '.join(names)}")
    if set(names) <= set(without):
        raise DataError(f"--without {', '.join(without)}: nothing is left to decide from")
    sets = _load_all(folders, split)
    lists = []
    for part in manifest.parts:
        mine = [
            (folder, found)
            for folder, found in sets
            if fits(part, found[0].info) and {r.label for r in found} <= set(manifest.labels)
        ]
        if len(mine) != 1:
            wanted = describe(part.input.family, part.input.channels, part.input.rate_hz)
            which = ", ".join(str(folder) for folder, _ in mine) or "none"
            raise DataError(
                f"input {part.name!r} of {manifest.name} wants one folder with {wanted} and its labels; {which} of "
                f"{', '.join(str(folder) for folder, _ in sets)} has that: name each input's folder with --data"
            )
        lists.append(mine[0][1])
    pairs = pair_by_label(lists)
    return [tuple(None if names[i] in without else one for i, one in enumerate(pair)) for pair in pairs]


def _load_all(folders: Sequence[Path], split: str) -> list[tuple[Path, list[Recording]]]:
    if len(folders) != 1:
        return [(folder, load(folder, split)) for folder in folders]
    sets = []
    try:
        inside = sorted(path for path in folders[0].iterdir() if path.is_dir())
    except OSError as error:
        raise DataError(f"{folders[0]}: cannot be read ({error.strerror})") from error
    for folder in inside:
        try:
            sets.append((folder, load(folder, split)))
        except DataError:
            continue  # a folder with something else, or without this split
    if not sets:
        raise DataError(f"{folders[0]}: no folder in it is a dataset with split {split!r}; name them with --data each")
    return sets


def _infos(manifest: Manifest, pairs: Sequence[Pair]) -> list[SensorInfo]:
    """Of each input, as its recordings say it; of one that is unplugged, as the manifest does."""
    if not pairs:
        raise BadModel("the data has no recordings")
    infos = []
    for i, part in enumerate(manifest.parts):
        found = {recording.info for pair in pairs if (recording := pair[i]) is not None}
        if len(found) > 1:
            raise BadModel(f"input {part.name!r}: the recordings have different rates or channels")
        infos.append(found.pop() if found else _stand_in(part.input.family, part.input.channels, part.input.rate_hz))
    return infos


def _stand_in(family: str, channels: Sequence[str], rate_hz: float) -> SensorInfo:
    units = {"imu": ("g", "g", "g", "deg/s", "deg/s", "deg/s")}.get(family, ("",) * len(channels))
    return SensorInfo(family, tuple(channels), units, (1.0,) * len(channels), rate_hz)
