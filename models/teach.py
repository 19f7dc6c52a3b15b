"""Teach a bundle a label, or a user, in its last layer only, as a child bundle.

A child has everything a bundle has, made anew (golden vectors, compiled artefacts, graph), names its parent, and keeps
the parent's files as they were in ``parent.npz``. Needs the extra ``build``.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models import batch, build, bundle, statistics
from models.base import BadModel, Window
from models.bundle import Bundle
from models.calibrate import Quantized
from models.examples import copies
from models.fewshot import SEED, Known, Lesson, learn
from models.network import STATE_MAX, Layer, Network, check, write_npz
from models.nir_row import with_row
from models.registry import make_encoder
from models.statistics import FILE, Activity, Rasters, Statistics
from models.undo import PARENT
from models.untrusted import NPZ_MAX_BYTES, read_file

HEADROOM = 1.25
"""The potential that the examples reach in the new row must stay this factor below the clip."""
MOST_KEPT_BYTES = NPZ_MAX_BYTES - (1 << 16)
"""Of a parent's files together; their headers need some room."""
_MADE_ANEW = ("format", "files", "weight_bits", "granularity", "parent")


@dataclass(frozen=True, slots=True)
class Taught:
    """A child bundle, from how many windows it learnt, and what is to be expected of it."""

    bundle: Bundle
    windows: int
    lesson: Lesson


def teach(parent: Bundle, label: str, windows: list[Window], out: Path, *, user: bool) -> Taught:
    """Write the child ``out`` of ``parent`` that knows ``label`` from ``windows``.

    ``user``: the label is known, and the windows are of somebody who says it otherwise. Raises BadModel.
    """
    known, of = check_lesson(parent, label, out, user=user)
    recipe = _recipe(parent, label, of)
    kept = _files(parent)
    examples = _encoded(parent, windows)
    seen = [statistics.look(parent.network, rasters) for rasters in examples]
    lesson = learn(_known(parent, known, seen, examples[0].shape[1]), [one.phi for one in seen], of)
    row = _for_all_rows(lesson.row, statistics.pooling(parent.network))
    network = _with_row(parent.network, row, of)
    rasters = np.concatenate(examples)
    _check_clip(network, rasters)
    learnt = statistics.look(network, rasters)
    card = (
        _titled(parent.artefact("CARD.md"), parent, recipe["version"])
        + _section(parent, label, len(windows), lesson, of).encode()
    )
    extra = {
        FILE: _extended(known, learnt, len(windows), parent.manifest.temperature, of).pack(),
        PARENT: write_npz({name: np.frombuffer(content, np.uint8) for name, content in kept.items()}),
    }
    parent.artefact("network.nir")  # its digest
    graph = with_row(parent.path / "network.nir", parent.network.layers[-1], row, of)
    manifest = parent.manifest
    quantized = Quantized(network, manifest.weight_bits, manifest.granularity, (), (), 0.0)
    child = build.assemble(out, recipe, graph, card, quantized, extra)
    return Taught(child, len(windows), lesson)


def check_lesson(parent: Bundle, label: str, out: Path, *, user: bool) -> tuple[Statistics, int | None]:
    """Before anybody gives examples: the statistics of ``parent``, and the row of ``label`` (None: a new one). Raises
    BadModel if this cannot be taught, or not into ``out``."""
    of = _which(parent, label, user)
    known = _usable(parent, out)
    bundle.check_place(out)
    return known, of


def _which(parent: Bundle, label: str, user: bool) -> int | None:
    """The row of the label; None for a new one. Raises BadModel."""
    labels = parent.manifest.labels
    if not (label.strip() and label.isprintable()):
        raise BadModel(f"the label {label!r} has nothing to read, or control characters; name it in plain text")
    if label in labels:
        if not user:
            raise BadModel(f"{parent.id} knows {label!r} already; say --user to teach it how one more user does it")
        return labels.index(label)
    if user:
        raise BadModel(f"{parent.id} does not know {label!r}, only {', '.join(labels)}; leave out --user to add it")
    return None


def _usable(parent: Bundle, out: Path) -> Statistics:
    """The statistics of ``parent``. Raises BadModel if it cannot be taught, or not into ``out``."""
    last = parent.network.layers[-1]
    known = statistics.read(parent)
    if parent.manifest.state != "reset":
        raise BadModel(f"{parent.id} decides on a stream, step by step; only models of windows can be taught")
    if known is None:
        raise BadModel(
            f"{parent.id} has no {FILE}, which tells what it knows from what is new; the trainings that make the "
            "shipped models write one, axond model build does not"
        )
    if last.v_th is not None or last.conv is not None:
        raise BadModel(f"{parent.id}: its last layer is no dense integrator; only such a readout can be taught")
    if (last.k_u != last.k_u[0]).any() or (last.k_v != last.k_v[0]).any():
        raise BadModel(f"{parent.id}: the neurons of its last layer decay differently; they must be alike to be taught")
    if out.resolve() == parent.path.resolve():
        raise BadModel(f"{out}: is the parent itself; name another folder for the child")
    return known


def _known(parent: Bundle, known: Statistics, seen: list[Activity], steps: int) -> Known:
    last, image = parent.network.layers[-1], statistics.pooling(parent.network)
    weights = last.w_in.reshape(-1, *image)[:, :, 0].reshape(len(last.w_in), -1)
    unit = statistics.unit(steps, last) * image[1]
    phi, potentials = np.concatenate([one.phi for one in seen]), np.concatenate([one.potentials for one in seen])
    constant = np.median(potentials - unit * (phi @ weights.T.astype(np.float64)), axis=0)
    return Known(weights, parent.manifest.weight_bits, constant, unit, parent.manifest.temperature, known)


def _for_all_rows(row: npt.NDArray[np.int8], image: tuple[int, int, int]) -> npt.NDArray[np.int8]:
    """A row of weights for pooled phi, as one for all neurons."""
    channels, _, columns = image
    return np.broadcast_to(row.reshape(channels, 1, columns), image).reshape(-1)


def _with_row(network: Network, row: npt.NDArray[np.int8], of: int | None) -> Network:
    last = network.layers[-1]
    if of is not None:
        w_in = last.w_in.copy()
        w_in[of] = row
        made = replace(last, w_in=w_in)
    else:
        made = Layer(
            name=last.name,
            w_in=np.concatenate([last.w_in, row[None]]),
            w_rec=None,
            k_u=np.append(last.k_u, last.k_u[:1]),
            k_v=np.append(last.k_v, last.k_v[:1]),
            bias=np.append(last.bias, np.int32(0)),
            v_th=None,
        )
    return check(Network((*network.layers[:-1], made)))


def _encoded(parent: Bundle, windows: list[Window]) -> list[Rasters]:
    """For each window the rasters (copies, steps, features) of itself and its distorted copies. Raises BadModel for
    one without a spike."""
    encoder = make_encoder(parent, windows[0].info)
    rng = np.random.default_rng(SEED)
    examples: list[Rasters] = []
    for window in windows:
        made = copies(parent, window, rng)
        rasters = np.zeros((len(made), *encoder.shape), np.uint8)
        for copy, raster in zip(made, rasters, strict=True):
            encoder.encode(copy, raster)
        still = window.info.family == "audio" and not np.ptp(window.data)
        if still or not rasters[0].any():
            raise BadModel(f"example {len(examples) + 1} of {len(windows)} is silence to {parent.id}; leave it out")
        examples.append(rasters)
    return examples


def _check_clip(network: Network, rasters: Rasters) -> None:
    """Raise BadModel when a potential comes near the clip, where it would no longer be linear in the weights."""
    seen = batch.run(network, rasters)[1][-1].v_seen
    if seen * HEADROOM > STATE_MAX:
        raise BadModel(f"on the examples a potential reaches {seen}, too near to the clip at {STATE_MAX}")


def _extended(known: Statistics, learnt: Activity, count: int, temperature: float, of: int | None) -> Statistics:
    """The statistics of the child: ``learnt`` are the ``count`` examples and their copies, seen by the new network."""
    mean = learnt.phi.mean(axis=0)
    if of is not None:
        before = int(known.counts[of])
        means, counts = known.means.copy(), known.counts.copy()
        means[of] = (before * means[of] + count * mean) / (before + count)
        counts[of] = before + count
        return replace(known, means=means, counts=counts)
    wider = replace(
        known,
        counts=np.append(known.counts, count),
        means=np.concatenate([known.means, mean[None].astype(np.float32)]),
    )
    values = statistics.signals(wider, learnt, temperature)
    spread = np.quantile(values, statistics.QUANTILES, axis=1).T.astype(np.float32)
    return replace(wider, quantiles=np.concatenate([known.quantiles, spread[None]]))


def _recipe(parent: Bundle, label: str, of: int | None) -> dict[str, Any]:
    """The parent's manifest, as ``assemble`` wants it, with the label and one minor version more. Raises BadModel."""
    document = json.loads((parent.path / bundle.MANIFEST).read_bytes())
    recipe = {key: value for key, value in document.items() if key not in _MADE_ANEW}
    major, minor, _ = parent.manifest.version.split(".")
    recipe["version"] = f"{major}.{int(minor) + 1}.0"
    if of is None:
        recipe["labels"] = [*parent.manifest.labels, label]
    build.manifest_of(recipe)
    return {**recipe, "parent": {"id": parent.id, "digest": parent.digest}}


def _files(parent: Bundle) -> dict[str, bytes]:
    """Every file of ``parent``, as it is. Raises BadModel when they are more than ``undo`` reads back."""
    plain = {name: read_file(parent.path / name, bundle.MAX_FILE_BYTES) for name in (bundle.MANIFEST, bundle.SEAL)}
    kept = plain | {name: parent.artefact(name) for name in parent.manifest.files}
    size = sum(map(len, kept.values()))
    if size > MOST_KEPT_BYTES:
        raise BadModel(
            f"{parent.id} has {size} bytes with all its parents, at most {MOST_KEPT_BYTES} can be kept for undo; train "
            "it anew"
        )
    return kept


def _titled(card: bytes, parent: Bundle, version: str) -> bytes:
    """The parent's card under the child's title; one that has another is a user's own, and stays."""
    title = f"# {parent.manifest.name} "
    return card.replace(f"{title}{parent.manifest.version}\n".encode(), f"{title}{version}\n".encode(), 1)


def _section(parent: Bundle, label: str, count: int, lesson: Lesson, of: int | None) -> str:
    """What the card of the child says beside that of the parent."""
    what = "the new label" if of is None else "another user's"
    found = "" if lesson.found is None else f" Left out in turn, {lesson.found:.0%} of the copies were found."
    return (
        f"\n## Taught\n\nFrom {parent.id}: {what} {label!r} from {count} examples, in one row of the last layer; all "
        f"other weights are\nthe parent's.{found}\nOn draws from its statistics the other labels lose "
        f"{lesson.lost_points:.1f} points. What is said above was measured with the parent.\n"
    )
