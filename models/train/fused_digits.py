"""Train the shipped model ``fused-digits``: a digit that is said, or shown to an event camera, or both at once.

``python -m models.train.fused_digits --out DIR`` writes what ``axond model build DIR`` makes the bundle of.
"""

import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Window
from models.build import manifest_of
from models.bundle import Manifest
from models.datasets import nmnist
from models.datasets.load import load, required
from models.datasets.recording import Recording, live_window
from models.encoders.audio_mel import AudioMel
from models.encoders.event_bins import EventBins
from models.evaluate_fused import Pair, live_joint, pair_by_label
from models.fused import FusedEncoder
from models.train import event_digits, loop, spoken_by_machines, spoken_digits
from models.train.augment_events import distort
from models.train.command import guarded, parser
from models.train.finish import Rasters, Recipe, Texts, finish, input_of, judge
from models.train.fused import Branch, FusedSnn, settle
from models.train.lif import LayerSpec
from models.window import WindowSpec

DATASETS = ("audio_fsdd", "event_nmnist")
LABELS = [str(digit) for digit in range(10)]
STEP_US = event_digits.ENCODER.step_us
SPOKEN = AudioMel.Config(frame=256, hop=spoken_by_machines.RATE_HZ * STEP_US // 1_000_000)
SEEN = event_digits.ENCODER
WORD = spoken_digits.WINDOW
SIGHT = WindowSpec(mode="onset", samples=1_000_000, pre=10_000, ratio=4.0, frames=2)
STEPS = 1_000_000 // STEP_US
LATE_MS = 150.0
HEARING = (
    LayerSpec(neurons=192, k_u=2300, k_v=3360, limit=1.0, recurrent=True),
    LayerSpec(neurons=128, k_u=2300, k_v=3360, limit=1.0),
)
SIGHT_SHAPE = (2, nmnist.SIDE, nmnist.SIDE)
READOUT = LayerSpec(neurons=10, k_u=2800, k_v=3800, limit=1.0)
SEED = 1
EPOCHS = 120
APART = 0.9
"""For this part of the epochs each sensor is trained by itself: quicker, and neither leans on the other."""
GLANCE = 16
"""Steps that are worked out for a sight by itself, which is over by then."""
EPOCH_ITEMS = 1500
BATCH = 32
VARIANTS = 6
"""Distorted copies of each spoken digit, beside the recording itself; shown ones are distorted anew in each epoch."""
ALONE = 0.3
"""Modality dropout: this part of the items has no sound, and as many no events."""
APART_STEPS = (-8, 13)
"""How much later than the word the sight may begin."""
INPUTS = ("audio", "events")
UNPLUGGED: tuple[tuple[str, ...], ...] = ((), ("audio",), ("events",))
FOLDS = 6
RANGE = 0.999
"""Quantile of the input spikes of a window that still are plausible."""


@dataclass(frozen=True, slots=True)
class Bank:
    """Words as spikes, and the windows of what was shown, by digit."""

    words: loop.Rasters
    word_labels: loop.Labels
    sights: list[Window]
    sight_labels: loop.Labels


def document(rate_ranges: list[tuple[float, float]]) -> Recipe:
    """What the bundle is; ``rate_ranges``: of each input."""
    parts: list[dict[str, Any]] = [
        {"name": "audio", "input": input_of(spoken_by_machines.INFO), "window": asdict(WORD),
         "encoder": {"kind": "audio_mel", **SPOKEN.model_dump(mode="json")}},
        {"name": "events", "input": input_of(nmnist.CAMERA_INFO), "window": asdict(SIGHT),
         "encoder": {"kind": "event_bins", **SEEN.model_dump(mode="json")}},
    ]  # fmt: skip
    for part, limits in zip(parts, rate_ranges, strict=True):
        part["rate_range"] = list(limits)
    return Recipe("fused-digits", None, None, None, LABELS, STEP_US / 1e6, inputs=parts, late_ms=LATE_MS)


def encode_words(recordings: list[Recording], rng: np.random.Generator) -> tuple[loop.Rasters, loop.Labels]:
    """Each as it is, and ``VARIANTS`` distorted copies."""
    encoder = AudioMel(SPOKEN, spoken_by_machines.INFO, WORD.samples)
    rasters, labels = [], []
    for recording in recordings:
        for copy in range(VARIANTS + 1):
            window = spoken_digits.heard(recording.data, rng) if copy else live_window(recording, WORD)
            if window is not None:
                rasters.append(np.zeros(encoder.shape, np.uint8))
                encoder.encode(window, rasters[-1])
                labels.append(LABELS.index(recording.label))
    return np.stack(rasters), np.array(labels, np.int64)


def encode_sights(windows: list[Window], rng: np.random.Generator | None) -> loop.Rasters:
    """Of distorted copies when ``rng`` is given."""
    encoder = EventBins(SEEN, nmnist.CAMERA_INFO, SIGHT.samples)
    out = np.zeros((len(windows), *encoder.shape), np.uint8)
    for i, window in enumerate(windows):
        seen = window
        if rng is not None:
            data = distort(window.data, nmnist.SIDE, nmnist.SIDE, rng, event_digits.SPREAD)
            seen = Window(window.t0_ns, 0, data, window.info, span_ns=window.span_ns)
        encoder.encode(seen, out[i])
    return out


def bank(words: list[Recording], sights: list[Recording], rng: np.random.Generator) -> Bank:
    pairs = [(window, recording.label) for recording in sights if (window := live_window(recording, SIGHT)) is not None]
    labels = np.array([LABELS.index(label) for _, label in pairs], np.int64)
    return Bank(*encode_words(words, rng), [window for window, _ in pairs], labels)


def items(given: Bank, rng: np.random.Generator, count: int) -> tuple[loop.Rasters, loop.Labels]:
    """``count`` joint rasters: a word and a sight of the same digit, one of them missing now and then."""
    chosen = rng.permutation(np.resize(np.arange(len(given.sights)), count))
    labels = given.sight_labels[chosen]
    sights = encode_sights([given.sights[i] for i in chosen], rng)
    features = given.words.shape[2]
    out = np.zeros((count, STEPS, features + sights.shape[2]), np.uint8)
    chances = np.repeat(rng.random(-(-count // BATCH)), BATCH)  # a whole batch alike: what is missing costs no time
    for i, word in enumerate(_words_of(labels, given, rng)):
        both, apart = chances[i] >= 2 * ALONE, int(rng.integers(*APART_STEPS))
        if both or chances[i] < ALONE:
            _place(out[i, :, :features], given.words[word], max(0, -apart) if both else 0)
        if both or chances[i] >= ALONE:
            _place(out[i, :, features:], sights[i], max(0, apart) if both else 0)
    return out, labels


def words_alone(given: Bank, rng: np.random.Generator, count: int) -> tuple[loop.Rasters, loop.Labels]:
    chosen = rng.integers(0, len(given.words), count)
    out = np.zeros((count, STEPS, given.words.shape[2] + math.prod(SIGHT_SHAPE)), np.uint8)
    out[:, : given.words.shape[1], : given.words.shape[2]] = given.words[chosen]
    return out, given.word_labels[chosen]


def sights_alone(given: Bank, rng: np.random.Generator, count: int) -> tuple[loop.Rasters, loop.Labels]:
    chosen = rng.permutation(np.resize(np.arange(len(given.sights)), count))
    out = np.zeros((count, GLANCE, given.words.shape[2] + math.prod(SIGHT_SHAPE)), np.uint8)
    out[:, :, given.words.shape[2] :] = encode_sights([given.sights[i] for i in chosen], rng)[:, :GLANCE]
    return out, given.sight_labels[chosen]


def _words_of(labels: loop.Labels, given: Bank, rng: np.random.Generator) -> list[int]:
    """A word of each label."""
    by_label = [np.flatnonzero(given.word_labels == digit) for digit in range(len(LABELS))]
    return [int(rng.choice(by_label[label])) for label in labels.tolist()]


def _place(out: npt.NDArray[np.uint8], raster: loop.Rasters, late: int) -> None:
    count = min(len(raster), len(out) - late)
    out[late : late + count] = raster[:count]


def train(given: Bank, rng: np.random.Generator, *, epochs: int) -> FusedSnn:
    features = given.words.shape[2]
    branches = Branch("audio", features, HEARING), Branch("events", SIGHT_SHAPE, tuple(event_digits.CONVOLUTIONS))
    net = FusedSnn(branches, READOUT, STEPS, gain=1.0, dropout=0.2)
    some = given.words[:: max(1, len(given.words) // BATCH)], encode_sights(given.sights[:BATCH], None)[:, :GLANCE]
    settle(net, [loop.to_steps(one) for one in some])
    started = time.monotonic()

    def report(epoch: int, loss: float, accuracy: float) -> None:
        print(
            f"epoch {epoch:3} loss {loss:.3f} accuracy {accuracy:.4f} {time.monotonic() - started:5.0f} s", flush=True
        )

    def epoch_items(epoch: int) -> tuple[loop.Rasters, loop.Labels]:
        if epoch >= APART * epochs:
            return items(given, rng, EPOCH_ITEMS)
        return (sights_alone if epoch % 3 else words_alone)(given, rng, EPOCH_ITEMS)

    loop.fit(
        net,
        epoch_items,
        lambda x: x,
        epochs=epochs,
        batch=BATCH,
        peak_rate=4e-3,
        weight_decay=0.01,
        averaged_epochs=3,
        report=report,
    )
    return net


def joint(manifest: Manifest, pairs: list[Pair]) -> Rasters:
    """As a live pipeline cuts and encodes them; pairs in which no window began count as missed."""
    infos = [spoken_by_machines.INFO, nmnist.CAMERA_INFO]
    encoder = FusedEncoder(manifest, infos, "recipe.json")
    found = [(live_joint(manifest, infos, encoder, pair), pair) for pair in pairs]
    known = [(one.raster, next(r.label for r in pair if r is not None)) for one, pair in found if one is not None]
    labels = np.array([LABELS.index(label) for _, label in known], np.int64)
    return Rasters(np.stack([raster for raster, _ in known]), labels, len(pairs) - len(known))


def texts(accuracies: dict[tuple[str, ...], float], counts: tuple[int, int, int]) -> Texts:
    alone = "\n".join(f"- without {', '.join(dead)}: {value:.4f}" for dead, value in accuracies.items() if dead)
    return Texts(
        about=f"""
Which digit, zero to nine, is said to a microphone (8 kHz), shown to an event camera ({nmnist.SIDE} x {nmnist.SIDE}
pixels), or both within some tenths of a second: windows of 1 s from where either begins. One network for both; when
a sensor is dead, the other one decides.
""",
        data=f"""
- Free Spoken Digit Dataset, Zohar Jackson et al., CC BY-SA 4.0: {counts[0]} recordings of five speakers.
- N-MNIST (Orchard, Jayawant, Cohen, Thakor, Frontiers in Neuroscience 2015), a subset: {counts[1]} recordings. It is
  published under CC BY-SA 4.0 as far as we know, which we could not confirm.

The two were paired by label, at random: nobody said what was shown. Changes: distorted and turned into spikes.
""",
        how=f"""
`python -m models.train.fused_digits --out DIR`, seed {SEED}, {EPOCHS} epochs of {EPOCH_ITEMS} pairs, distorted as for
`spoken-digits` and `event-digits`. For {APART:.0%} of the epochs words and sights (two epochs of three) are
trained by themselves; then together: in {ALONE:.0%} of the pairs the sound is missing, in {ALONE:.0%} the events
(modality dropout), and in the others the sight begins
up to {-APART_STEPS[0] * STEP_US // 1000} ms before the word and up to
{APART_STEPS[1] * STEP_US // 1000} ms after it. Steps of {STEP_US // 1000} ms. Each sensor has two layers of LIF neurons
of its own, side by side with the other's: {HEARING[0].neurons} recurrent and {HEARING[1].neurons} other neurons for
sound, the two convolutions of `event-digits` for events. One integrating readout hears both; weights on the int8 grid
(straight-through), reset to zero, no bias.
""",
        more=f"""
That is on {counts[2]} pairs of test recordings, with both sensors. With one of them unplugged, int8:

{alone}
""",
        limits="""
- What limits `spoken-digits` and `event-digits` limits this model: five male speakers; one camera and one motion.
- Word and sight are expected to mean the same. When they do not, one of them wins; the quality does not tell.
- Its accuracy with both sensors is of pairs that were made, and both parts are easy: expect less of a real scene.
""",
    )


def main(argv: list[str] | None = None) -> int:
    options = parser(
        "fused_digits", __doc__ or "", "folder of audio_fsdd and event_nmnist; default: where found", EPOCHS
    )
    options.add_argument("--fold", type=int, help="judge on this sixth of the training parts instead; writes nothing")
    args = options.parse_args(argv)
    return guarded(lambda: run([_folder(args.data, name) for name in DATASETS], args.out, args.epochs, args.fold))


def _folder(parent: Path | None, name: str) -> Path:
    return required(name, None if parent is None else parent / name)


def run(folders: list[Path], out: Path, epochs: int, fold: int | None) -> None:
    """Train, judge, and unless ``fold`` is given, write the files. Raises ModelError."""
    audio, events = folders
    started_s = time.monotonic()
    rng = loop.start(SEED)
    words, sights = load(audio, "train"), load(events, "train")
    pairs: list[tuple[Recording, ...]]
    if fold is None:
        pairs = pair_by_label([load(audio, "test"), load(events, "test")])
    else:
        pairs, words, sights = _held_out(words, sights, fold)
    given = bank(words, sights, rng)
    print(
        f"{len(given.word_labels)} words, {len(given.sights)} sights, {time.monotonic() - started_s:.0f} s", flush=True
    )
    net = train(given, rng, epochs=epochs)
    recipe = document(_rate_ranges(given, rng))
    judged = {without: joint(manifest_of(recipe.document()), unplugged(pairs, without)) for without in UNPLUGGED}
    accuracies = {without: judge(net, one, len(LABELS)).accuracy_int8 for without, one in judged.items()}
    print(accuracies, flush=True)
    if fold is None:
        counts = (len(words), len(sights), len(pairs))
        finish(
            net, recipe, Rasters(*items(given, rng, EPOCH_ITEMS)), judged[()], out, texts(accuracies, counts), started_s
        )


def unplugged(pairs: list[tuple[Recording, ...]], without: tuple[str, ...]) -> list[Pair]:
    """The same pairs with these inputs dead."""
    return [tuple(None if name in without else r for name, r in zip(INPUTS, pair, strict=True)) for pair in pairs]


def _rate_ranges(given: Bank, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Fewest and most input spikes of nearly all windows of training, distorted ones among them."""
    sights = encode_sights(given.sights, rng)
    return [
        (float(np.quantile(spikes, 1 - RANGE)), float(np.quantile(spikes, RANGE)))
        for spikes in (one.sum(axis=(1, 2), dtype=np.int64) for one in (given.words, sights))
    ]


def _held_out(
    words: list[Recording], sights: list[Recording], fold: int
) -> tuple[list[tuple[Recording, ...]], list[Recording], list[Recording]]:
    """Pairs to judge, and the words and sights that are left to train: whole blocks of sights, every sixth word."""
    mine = [fold == i * FOLDS // len(sights) for i in range(len(sights))]
    kept = pair_by_label([words[fold::FOLDS], [r for r, own in zip(sights, mine, strict=True) if own]])
    left = [r for i, r in enumerate(words) if i % FOLDS != fold]
    return kept, left, [r for r, own in zip(sights, mine, strict=True) if not own]


if __name__ == "__main__":
    sys.exit(main())
