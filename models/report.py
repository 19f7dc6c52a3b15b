"""One HTML page about a bundle: what it decides rightly, how sure it may be, and what it costs. No scripts, no network.

Reliability of scores as in Guo et al., On Calibration of Modern Neural Networks (2017): windows by their top score in
ten equal bins, the share of right decisions in each beside the mean score; the expected calibration error is their
mean distance, weighted by windows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from models.backends.reference import ReferenceBackend
from models.base import Trace
from models.bundle import Bundle
from models.evaluate import Coded, Decisions, Evaluation, summary
from models.report_drawing import bars, picture, raster, reliability
from models.stages import stages

BINS = 10
EXAMPLES = 3
"""Rasters of right windows, and as many of wrong ones."""
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .6em 0 1.2em }
td, th { padding: .2em .6em; border: 1px solid #ccc; text-align: right }
th, td:first-child { text-align: left; font-weight: 600 }
figure { display: inline-block; margin: 0 1em 1em 0 }
figcaption { font-size: 13px; max-width: 24em }
pre { background: #f6f6f6; padding: 1em; white-space: pre-wrap }
svg { background: #fff; border: 1px solid #ccc }
"""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Of one label."""

    label: str
    windows: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Windows whose top score is in one tenth of 0..1."""

    windows: int
    score: float
    right: float


def class_scores(labels: list[str], confusion: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> list[ClassScore]:
    """Precision, recall and F1 of each label; windows that did not begin count against recall."""
    rows = []
    for i, label in enumerate(labels):
        right, said, there = int(confusion[i, i]), int(confusion[:, i].sum()), int((truth == i).sum())
        precision, recall = right / said if said else 0.0, right / there if there else 0.0
        both = precision + recall
        rows.append(ClassScore(label, there, precision, recall, 2 * precision * recall / both if both else 0.0))
    return rows


def calibration(said: Decisions) -> tuple[list[Bin], float]:
    """The bins, lowest first, and the expected calibration error."""
    heard = said.decided >= 0
    top, right = said.scores.max(axis=1)[heard], (said.decided == said.truth)[heard]
    which = np.minimum((top * BINS).astype(np.int64), BINS - 1)
    bins = []
    for i in range(BINS):
        mine = which == i
        count = int(mine.sum())
        bins.append(Bin(count, float(top[mine].mean()) if count else 0.0, float(right[mine].mean()) if count else 0.0))
    total = max(1, sum(one.windows for one in bins))
    return bins, sum(one.windows * abs(one.score - one.right) for one in bins) / total


def page(
    bundle: Bundle, judged: tuple[Coded, Decisions] | None, source: str, latencies_us: Mapping[str, float | str]
) -> str:
    """The page. ``judged`` is what was found on the recordings of ``source``; ``latencies_us``, by backend, the time
    of a step or why there is none."""
    card = bundle.artefact("CARD.md").decode("utf-8", "replace") if "CARD.md" in bundle.manifest.files else "none"
    parts = [_facts(bundle)]
    if judged is None:
        parts.append("<p>No recordings were given: <code>--data FOLDER</code> adds accuracy, scores and examples.</p>")
    else:
        parts += [_accuracy(bundle, *judged, source), _calibration(judged[1]), _examples(bundle, *judged)]
    parts += [_latency(latencies_us), f"<h2>Card</h2><pre>{escape(card)}</pre>"]
    title = escape(bundle.id)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"</head><body><h1>{title}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + "\n".join(lines) + "</table>"


def _facts(bundle: Bundle) -> str:
    manifest, network = bundle.manifest, bundle.network
    beside = [" + ".join(str(network.neurons[i]) for i in stage) for stage in stages(network.layers)]
    chain = " - ".join([str(network.features), *beside])
    rows = [
        ["network", f"{chain}, int{manifest.weight_bits}, one scale per {manifest.granularity}"],
        ["labels", ", ".join(manifest.labels)],
        ["manifest SHA-256", bundle.digest],
    ]
    return _table(["", ""], rows)


def _accuracy(bundle: Bundle, coded: Coded, said: Decisions, source: str) -> str:
    found: Evaluation = summary(coded, said)
    labels = bundle.manifest.labels
    scores = class_scores(labels, found.confusion, said.truth)
    rows = [
        ["int8" if bundle.manifest.weight_bits == 8 else "int4", f"{found.correct} of {found.total}",
         f"{found.correct / found.total:.4f}"],
        ["float", f"{found.correct_float} of {found.total}", f"{found.correct_float / found.total:.4f}"],
    ]  # fmt: skip
    table = [
        [one.label, str(one.windows), *(f"{value:.3f}" for value in (one.precision, one.recall, one.f1))]
        for one in scores
    ]
    groups = [[name, f"{right} of {total}", f"{right / total:.3f}"] for name, (right, total) in found.groups.items()]
    few = len(groups) <= 40
    return (
        f"<h2>Accuracy on {escape(source)}</h2>{_table(['network', 'right', 'accuracy'], rows)}"
        f"<p>The two decide otherwise in {found.disagreements} windows. In {found.no_window} recordings no window "
        f"began.</p><h3>By label</h3>{_table(['label', 'windows', 'precision', 'recall', 'F1'], table)}"
        f"<h3>Confusion (rows are the truth)</h3>{_confusion(labels, found.confusion)}"
        + (f"<h3>By group</h3>{_table(['group', 'right', 'accuracy'], groups)}" if groups and few else "")
    )


def _confusion(labels: list[str], counts: npt.NDArray[np.int64]) -> str:
    most = max(1, int(counts.max()))
    lines = ["<tr><th></th>" + "".join(f"<th>{escape(label)}</th>" for label in labels) + "</tr>"]
    for i, (label, row) in enumerate(zip(labels, counts.tolist(), strict=True)):
        cells = []
        for j, count in enumerate(row):
            colour = "60,140,60" if i == j else "200,60,60"
            cells.append(f'<td style="background:rgba({colour},{count / most:.2f})">{count or ""}</td>')
        lines.append(f"<tr><td>{escape(label)}</td>{''.join(cells)}</tr>")
    return "<table>" + "\n".join(lines) + "</table>"


def _calibration(said: Decisions) -> str:
    bins, error = calibration(said)
    return (
        "<h2>May its scores be believed?</h2><figure>"
        + reliability([(one.score, one.right) for one in bins if one.windows])
        + "<figcaption>Share of right decisions over mean score; on the line they are the same.</figcaption></figure>"
        + "<figure>"
        + bars([one.windows for one in bins])
        + f"<figcaption>Windows by score, 0 to 1.</figcaption></figure><p>Expected calibration error {error:.3f}.</p>"
    )


def _examples(bundle: Bundle, coded: Coded, said: Decisions) -> str:
    """Spikes of some windows, the surest of either kind first: input, then what hears it."""
    first = stages(bundle.network.layers)[0]
    reference = ReferenceBackend()
    reference.load(bundle)
    lying = bundle.manifest.parts[0].input.family == "audio"
    sure = np.argsort(-said.scores.max(axis=1), kind="stable")
    out = ["<h2>Spikes</h2>"]
    for heading, kind in (("right", said.decided == said.truth), ("wrong", said.decided != said.truth)):
        chosen = [int(i) for i in sure if kind[i] and coded.heard[i]][:EXAMPLES]
        out.append(f"<h3>The surest decisions that are {heading}</h3>" + ("" if chosen else "<p>There are none.</p>"))
        for i in chosen:
            trace = Trace.empty(len(coded.rasters[i]), bundle.network.neurons)
            reference.infer(coded.rasters[i], trace=trace)
            labels = bundle.manifest.labels
            said_text = f"{labels[said.decided[i]]} ({said.scores[i].max():.2f}), truth {labels[said.truth[i]]}"
            layers = [bundle.network.layers[j] for j in first]
            seen = layers[0].conv.in_shape if layers[0].conv is not None and len(layers) == 1 else None
            out.append(_drawn(f"{said_text}: input", coded.rasters[i], seen, lying))
            for j, layer in zip(first, layers, strict=True):
                image = None if layer.conv is None else layer.conv.out_shape(layer.w_in.shape)
                out.append(_drawn(f"{said_text}: {layer.name}", trace.spikes[j], image, lying))
    return "\n".join(out)


def _drawn(what: str, spikes: npt.NDArray[np.uint8], image: tuple[int, int, int] | None, lying: bool) -> str:
    """Spikes (steps, neurons) in time; those of an ``image`` (channels, rows, columns) in its plane."""
    count = int(spikes.sum())
    if image is None:
        drawing, caption = raster(spikes), f"{what}, {spikes.shape[1]} rows, {count} spikes"
    else:
        drawing = picture(spikes.reshape(-1, *image[1:]).mean(axis=0), lying=lying)
        caption = (
            f"{what}, {image[1]} x {image[2]} places in {image[0]} channels and {len(spikes)} steps, {count} spikes"
        )
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _latency(latencies_us: Mapping[str, float | str]) -> str:
    rows = [
        [kind, f"{value:.1f}" if isinstance(value, float) else "", value if isinstance(value, str) else ""]
        for kind, value in latencies_us.items()
    ]
    return "<h2>Time on this machine</h2>" + _table(["backend", "us per step", "why not"], rows)
