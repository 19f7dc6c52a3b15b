"""Train the shipped model ``wake-words``: six words in a stream of sound at 16 kHz, and the background.

``python -m models.train.wake_words --out DIR`` writes what ``axond model build DIR`` takes.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models import build, soundscape
from models.backends.onnx import OnnxBackend
from models.base import ModelError
from models.bundle import Bundle
from models.datasets.load import find, load
from models.datasets.recording import DataError, Recording, audio_info
from models.detect import Detector
from models.encoders.audio_relative import AudioRelativeStream
from models.evaluate_stream import StreamEvaluation, evaluate_stream
from models.soundscape import Score
from models.stream import Stream
from models.train import finish, loop
from models.train.lif import LayerSpec
from models.train.spotting import SETTLE, StreamSnn, objective
from models.train.wake_scenes import RATE_HZ, SCENE, Pools, Spoken, Wave, cut_out, scene, sounds, spoken

WORDS = ["alexa", "computer", "jarvis", "smart_mirror", "snowboy", "view_glass"]
BACKGROUND = "background"
LABELS = [*WORDS, BACKGROUND]
INFO = audio_info(RATE_HZ)
ENCODER = AudioRelativeStream.Config(fall_db_s=15.0, levels_db=(-6, -14, -22, -32), contrasts_db=(12, 24))
HIDDEN = [LayerSpec(neurons=256, k_u=2800, k_v=3600, limit=0.5, recurrent=True)]
READOUT = LayerSpec(neurons=len(LABELS), k_u=2800, k_v=3600, limit=1.0)
READOUT_STEPS = 40
THRESHOLD = 0.9
HOLD_S = 0.7
DT_S = ENCODER.hop / RATE_HZ
STEPS = (SCENE - 1 - ENCODER.frame) // ENCODER.hop + 1
SEED = 1
SCENES = 12000
EPOCHS = 36
EPOCH_SCENES = 4096
"""An epoch takes this many of all scenes, at random."""
PEAK_RATE = 2e-3
ROUNDS = 2
MORE_SCENES, MORE_EPOCHS, MORE_PEAK_RATE = 6000, 16, 1.2e-3
SOUNDS, KEPT = 6144, 2048
"""In each round the network listens to so many scenes of sounds without speech. So many in which it is surest of a word
are learned with new scenes, now and in the rounds that follow (hard negatives)."""
BATCH = 64
SPOKEN = Spoken(per_word=60, per_other=3, made_up=160)
EVERY_DIGIT = 18
"""Of the recordings of spoken digits every so manieth is other speech."""
FOLDS = 4
HELD_NOISES = "3-"
"""The fold of ESC-10 that judges with ``--fold``, as its clips' names begin."""
SNRS_DB = (10.0, 20.0)
SCENE_S = 15.0
HOURS = 1.0
JUDGED_SCENES = 512
"""For the statistics of activity in the bundle."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Recordings for training and for judging."""

    words: list[Recording]
    noises: list[Recording]
    digits: list[Recording]
    judged_words: list[Recording]
    judged_noises: list[Recording]


@dataclass(frozen=True, slots=True)
class Scenes:
    """Rasters packed along their features, and rows of labels, see ``models.train.spotting``."""

    packed: loop.Rasters
    rows: npt.NDArray[np.int64]

    def rasters(self, which: npt.NDArray[np.int64]) -> loop.Rasters:
        return np.unpackbits(self.packed[which], axis=2, count=ENCODER.features)


def make_pools(parts: Parts, rng: np.random.Generator) -> Pools:
    """What scenes are made of. Raises SpeechUnavailable."""
    made, others = spoken([word.replace("_", " ") for word in WORDS], SPOKEN, rng)
    return Pools(
        human=[(cut_out(r.data[:, 0]), WORDS.index(r.label)) for r in parts.words],
        made=made,
        others=others + [_doubled(r.data[:, 0]) for r in parts.digits],
        noises=[r.data[:, 0].astype(np.float64) for r in parts.noises],
    )


def make_scenes(pools: Pools, rng: np.random.Generator, count: int) -> Scenes:
    """Scenes as spikes."""
    packed = np.zeros((count, STEPS, -(-ENCODER.features // 8)), np.uint8)
    rows = np.zeros((count, 4), np.int64)
    for i in range(count):
        one = scene(pools, len(LABELS), rng)
        packed[i] = np.packbits(_raster(one.samples), axis=1)
        times = np.array([one.begin, one.first, one.last])
        rows[i] = one.label, *((times - ENCODER.frame) // ENCODER.hop + 1)
    return Scenes(packed, rows)


def mistaken(net: StreamSnn, pools: Pools, rng: np.random.Generator, count: int) -> Scenes:
    """Of ``count`` scenes of sounds without speech, the third in which ``net`` is surest of a word."""
    net.eval()
    parts, sure = [], []
    for _ in range(count // BATCH):
        rasters = np.stack([_raster(sounds(pools, rng)) for _ in range(BATCH)])
        with torch.no_grad():
            scores = torch.softmax(net(loop.to_steps(rasters)), dim=2)
        sure.append(scores[SETTLE:, :, :-1].amax((0, 2)).numpy())
        parts.append(np.packbits(rasters, axis=2))
    surest = np.argsort(-np.concatenate(sure), kind="stable")[: count * KEPT // SOUNDS]
    print(f"sounds taken for a word: {(np.concatenate(sure) > THRESHOLD).mean():.4f} of all scenes", flush=True)
    rows = np.tile(np.array([len(LABELS) - 1, 0, 0, 0], np.int64), (len(surest), 1))
    return Scenes(np.concatenate(parts)[surest], rows)


def joined(*scenes: Scenes) -> Scenes:
    return Scenes(np.concatenate([one.packed for one in scenes]), np.concatenate([one.rows for one in scenes]))


def _raster(samples: npt.NDArray[np.int16]) -> loop.Rasters:
    return AudioRelativeStream(ENCODER, INFO).steps(samples.astype(np.int64))


def _doubled(samples: npt.NDArray[np.generic]) -> Wave:
    """8 kHz to 16 kHz."""
    return np.interp(np.arange(2 * len(samples)) / 2, np.arange(len(samples)), samples.astype(np.float64))


def mask(x: torch.Tensor) -> torch.Tensor:
    """Hide a stretch of time and of bands, so that no single cue carries a word (SpecAugment, Park et al. 2019)."""
    steps, batch, features = x.shape
    for count, groups, widest in ((steps, 1, 9), (ENCODER.bands, features // ENCODER.bands, 5)):
        first = torch.randint(0, count, (batch, 1))
        width = torch.randint(0, widest, (batch, 1)) * (torch.rand(batch, 1) < 0.5)
        at = torch.arange(count)
        keep = ((at < first) | (at >= first + width)).float()
        x = x * (keep.t()[:, :, None] if groups == 1 else keep.repeat(1, groups)[None])
    return x


def train(net: StreamSnn, scenes: Scenes, rng: np.random.Generator, *, epochs: int, peak_rate: float) -> None:
    started = time.monotonic()

    def epoch_items(_epoch: int) -> tuple[loop.Rasters, loop.Labels]:
        which = rng.permutation(len(scenes.rows))[:EPOCH_SCENES]
        return scenes.rasters(which), scenes.rows[which]

    def report(epoch: int, loss: float, right: float) -> None:
        print(
            f"epoch {epoch:3} loss {loss:.3f} words right {right:.4f} {time.monotonic() - started:5.0f} s", flush=True
        )

    loop.fit(
        net,
        epoch_items,
        mask,
        epochs=epochs,
        batch=BATCH,
        peak_rate=peak_rate,
        weight_decay=0.01,
        averaged_epochs=3,
        report=report,
        objective=objective,
    )


def listen(bundle: Bundle, words: list[Recording], noises: list[Recording], snr_db: float) -> Score:
    """The int8 network through ``HOURS`` of words in noises; the same ones each time."""
    detect = bundle.manifest.detect
    if detect is None:
        raise DataError(f"{bundle.id} has no part detect")
    backend = OnnxBackend()
    backend.load(bundle)
    source = soundscape.scenes(words, noises, np.random.default_rng(SEED), scene_s=SCENE_S, snr_db=snr_db)
    said, heard = [], []
    listened = soundscape.listen(Stream(bundle, backend, INFO), Detector(detect), source)
    for word, detections in islice(listened, round(HOURS * 3600 / SCENE_S)):
        said.append(word)
        heard += detections
    backend.close()
    found = soundscape.score(said, heard)
    print(f"{HOURS:g} h at {snr_db:g} dB: {found}", flush=True)
    return found


def recipe() -> finish.Recipe:
    return finish.Recipe(
        name="wake-words",
        sensor=INFO,
        window=None,
        encoder={"kind": "audio_relative", **ENCODER.model_dump(mode="json")},
        labels=LABELS,
        dt_s=DT_S,
        state="carry",
        readout_steps=READOUT_STEPS,
        detect={"threshold": THRESHOLD, "ignore": [BACKGROUND], "hold_s": HOLD_S},
    )


def texts(parts: Parts, evaluated: StreamEvaluation, scores: dict[float, Score]) -> finish.Texts:
    hours = "\n".join(
        f"| {snr_db:g} dB | {found.said} | {found.hits / found.said:.3f} | {found.false_alarms / HOURS:g} "
        f"| {found.wrong / HOURS:g} |"
        for snr_db, found in scores.items()
    )
    return finish.Texts(
        about=f"""
Six words in a stream of sound: {", ".join(word.replace("_", " ") for word in WORDS)}. One microphone at 16 kHz, no
windows: a score for each word, and for the background, every {DT_S * 1e3:g} ms. A word is detected when its score
over the last {READOUT_STEPS * DT_S:g} s reaches {THRESHOLD:g}; detections that follow each other by no more than
{HOLD_S:g} s are one.
`report = "detect"`, which is the default for this model, gives one result for each; its `threshold` sets another one.
""",
        data=f"""
- Picovoice wake-word-benchmark (https://github.com/Picovoice/wake-word-benchmark), Apache-2.0: {len(parts.words)}
  training and {len(parts.judged_words)} test clips of many unnamed people, who may be in both. Words cut out,
  distorted and mixed.
- ESC-10, part of ESC-50 (K. J. Piczak, ESC: Dataset for Environmental Sound Classification, ACM MM 2015; the sounds by
  Freesound authors listed in its LICENSE), CC BY: folds 1 to 3 in training, fold 4 for judging.
- Free Spoken Digit Dataset, Zohar Jackson et al., CC BY-SA 4.0: some of its training part, as other speech.
- Words and other words by espeak-ng (GPL-3.0-or-later, which does not cover its output) in random voices.
""",
        how=f"""
`python -m models.train.wake_words --out DIR`, seed {SEED}: {SCENES} made scenes of 3 s, {EPOCHS} epochs of
{EPOCH_SCENES} of them, then {ROUNDS} times {MORE_EPOCHS} more of {MORE_SCENES} new ones and the {KEPT} of {SOUNDS}
scenes of sounds alone that it took most for words (hard negatives). A scene has one word, found in its clip by energy,
or none, among half words, words backwards, other speech and ESC-10 sounds, over noise; augmented by pitch and formant
shift, pace, room, frequency response, level and clipping. Encoded by
`audio_relative`. One recurrent CUBA-LIF layer of {HIDDEN[0].neurons} neurons and an integrating readout, trained with
weights on the int8 grid (straight-through), reset to zero, no bias. Decays {HIDDEN[0].k_u}/4096 (synapse) and
{HIDDEN[0].k_v}/4096 (membrane). The loss asks for the word around its end, and for
the background everywhere else.
""",
        more=f"""A clip's word is the one with the highest score anywhere in it. As a detector: {evaluated.hits} hits
and {evaluated.false_alarms} false alarms in the {evaluated.total} clips.

In {HOURS:g} h of ESC-10 sounds (fold 4, at random, in a row), with a test clip somewhere in every {SCENE_S:g} s, and
the sounds as loud as puts the word so far above those under it:

| words above sounds | words said | hit rate | false alarms per hour | wrong words per hour |
|---|---|---|---|---|
{hours}

A false alarm is a detection where no clip was; a wrong word is a detection during a clip, or up to
{soundscape.LATE_S:g} s after it, of another word or of the same once more. `axond bench listen` repeats it.
""",
        limits="""
- Few people, of whom little is known; English words. Other accents, children and far microphones were not measured.
- The clips of "alexa" come from another collection than the others: their recording may help to tell them.
- Speech other than the six words is known from espeak-ng, digits and parts of words only. In rooms where people talk or
  a television runs, expect more false alarms than stated, and set a higher threshold.
- Not a lock: anybody's voice, and a recording of it, is heard the same.
""",
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.train.wake_words", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for what axond model build takes")
    parser.add_argument("--data", type=Path, help="words; default: audio_wakewords")
    parser.add_argument("--noise", type=Path, help="sounds; default: audio_esc10")
    parser.add_argument("--digits", type=Path, help="other speech; default: audio_fsdd")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument(
        "--fold", type=int, help=f"judge on this block (0..{FOLDS - 1}) of the training part instead; writes nothing"
    )
    args = parser.parse_args(argv)
    try:
        names = {"data": "audio_wakewords", "noise": "audio_esc10", "digits": "audio_fsdd"}
        folders = [getattr(args, option) or find(name) for option, name in names.items()]
        run(gather(folders, args.fold), args.out, args.epochs, args.scenes, args.fold is None)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def gather(folders: list[Path | None], fold: int | None) -> Parts:
    """What to train with and what to judge with, of words, sounds and digits. Raises DataError."""
    words, noises, digits = folders
    if words is None or noises is None or digits is None:
        raise DataError(
            "dataset audio_wakewords, audio_esc10 or audio_fsdd was not found; give --data, --noise and --digits, or "
            "set AXOND_DATA to their parent folder"
        )
    said, sounds = load(words, "train"), load(noises, "train")
    others = load(digits, "train")[::EVERY_DIGIT]
    if fold is None:
        return Parts(said, sounds, others, load(words, "test"), load(noises, "test"))
    block: dict[str, int] = {}
    held = []
    for recording in said:
        at = block[recording.label] = block.get(recording.label, -1) + 1
        held.append(at * FOLDS * len(WORDS) // len(said) == fold)
    return Parts(
        words=[r for r, out in zip(said, held, strict=True) if not out],
        noises=[r for r in sounds if not r.group.startswith(HELD_NOISES)],
        digits=others,
        judged_words=[r for r, out in zip(said, held, strict=True) if out],
        judged_noises=[r for r in sounds if r.group.startswith(HELD_NOISES)],
    )


def run(parts: Parts, out: Path, epochs: int, count: int, keep: bool) -> None:
    """Train, judge, and write everything into ``out`` if it is to be kept. Raises ModelError."""
    started_s = time.monotonic()
    rng = loop.start(SEED)
    pools = make_pools(parts, rng)
    scenes = make_scenes(pools, rng, count)
    print(f"{count} scenes in {time.monotonic() - started_s:.0f} s", flush=True)
    net = StreamSnn(ENCODER.features, HIDDEN, READOUT, READOUT_STEPS, gain=0.5, dropout=0.25)
    train(net, scenes, rng, epochs=epochs, peak_rate=PEAK_RATE)
    hard: list[Scenes] = []
    for _ in range(ROUNDS):
        hard.append(mistaken(net, pools, rng, min(SOUNDS, count)))
        scenes = joined(make_scenes(pools, rng, min(MORE_SCENES, count)), *hard)
        train(net, scenes, rng, epochs=min(MORE_EPOCHS, epochs), peak_rate=MORE_PEAK_RATE)
    some = np.arange(min(MORE_SCENES, count, JUDGED_SCENES))  # the mistaken ones are behind them
    seen = finish.Rasters(scenes.rasters(some), scenes.rows[some, 0])
    with tempfile.TemporaryDirectory() as scratch:
        folder = out if keep else Path(scratch) / "source"
        finish.write(net, recipe(), seen, folder)
        (folder / "CARD.md").touch()
        bundle = build.build(folder, Path(scratch) / "bundle")
        backend = OnnxBackend()
        backend.load(bundle)
        evaluated = evaluate_stream(bundle, backend, parts.judged_words)
        backend.close()
        print(json.dumps({"correct": evaluated.correct, "float": evaluated.correct_float, "of": evaluated.total}))
        print(evaluated.confusion, evaluated.hits, evaluated.false_alarms, flush=True)
        scores = {snr_db: listen(bundle, parts.judged_words, parts.judged_noises, snr_db) for snr_db in SNRS_DB}
    if not keep:
        return
    judged = finish.Judgement(
        evaluated.correct_float / evaluated.total, evaluated.correct / evaluated.total, evaluated.confusion
    )
    costs = finish.cost(out, seen.rasters)
    minutes = (time.monotonic() - started_s) / 60
    text = finish.card(recipe(), judged, texts(parts, evaluated, scores), costs, minutes)
    (out / "CARD.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
