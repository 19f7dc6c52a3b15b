"""Train the shipped model ``spoken-digits``: zero to nine in English, at 8 kHz.

``python -m models.train.spoken_digits --out DIR`` writes what ``axond model build DIR`` makes the bundle of.
"""

import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from drivers.packet import Packet
from models import speech
from models.base import Window
from models.datasets.load import load, required
from models.datasets.recording import DataError, Recording, audio_info, live_window
from models.encoders.audio_mel import AudioMel
from models.train import augment, loop
from models.train.command import guarded, parser
from models.train.finish import Rasters, Recipe, Texts, finish, judge
from models.train.lif import LayerSpec, Snn
from models.window import Windower, WindowSpec

RATE_HZ = 8000
INFO = audio_info(RATE_HZ)
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABELS = [str(digit) for digit in range(10)]
WINDOW = WindowSpec(mode="onset", samples=8000, pre=800, ratio=4.0, frames=2)
ENCODER = AudioMel.Config()
HIDDEN = [LayerSpec(neurons=256, k_u=2800, k_v=3600, limit=0.5, recurrent=True)]
READOUT = LayerSpec(neurons=10, k_u=2800, k_v=3800, limit=1.0)
DT_S = ENCODER.hop / RATE_HZ
SEED = 1
EPOCHS = 14
VARIANTS = {"human": 8, "synthetic": 3}
"""Distorted copies of each recording, beside the recording itself."""
EPOCH_ITEMS = 16384
"""An epoch takes this many of all windows, at random."""
UNSEEN = """\
On a speaker left out of training (jackson, 480 recordings; float network, less than half of the training): 0.908."""
"""From the search for this recipe; ``--unseen SPEAKER`` repeats such a measurement."""
STATISTICS_EVERY = 3
"""Of the training windows every third is enough for the bundle's statistics."""
RECIPE = Recipe(
    name="spoken-digits",
    sensor=INFO,
    window=WINDOW,
    encoder={"kind": "audio_mel", **ENCODER.model_dump(mode="json")},
    labels=LABELS,
    dt_s=DT_S,
)
LEAD_IN = RATE_HZ // 2
HELD_OUT_ACCENT = "en-gb-scotland"
HELD_OUT_EVERY = 6
"""Every sixth espeak-ng variant, and one accent, is kept for judging."""


def distort(wave: augment.Wave, rng: np.random.Generator) -> augment.Wave:
    """Another speaker, pace, room and microphone."""
    if rng.random() < 0.8:
        wave = augment.resample(wave, np.exp(rng.uniform(np.log(0.78), np.log(1.28))))
    if rng.random() < 0.5 and len(wave) > 1200:
        wave = augment.stretch(wave, np.exp(rng.uniform(np.log(0.7), np.log(1.4))))
    if rng.random() < 0.35:
        wave = augment.reverberate(wave, rng, RATE_HZ)
    if rng.random() < 0.7:
        wave = augment.equalise(wave, rng, rng.uniform(1, 6))
    return wave


def heard(data: npt.NDArray[np.int16], rng: np.random.Generator) -> Window | None:
    """The window that a pipeline would cut from a distorted copy at a random level in a random room."""
    wave = data[:, 0] - data.mean()
    wave = distort(wave, rng)[: RATE_HZ * 3 // 2]
    stream = np.zeros(LEAD_IN + len(wave) + WINDOW.samples)
    stream[LEAD_IN : LEAD_IN + len(wave)] = wave * 10 ** (rng.uniform(-32, -1) / 20) * 32768 / np.abs(wave).max()
    if rng.random() < 0.7:
        power = np.mean(stream[LEAD_IN : LEAD_IN + len(wave)] ** 2)
        stream += augment.coloured_noise(len(stream), rng) * np.sqrt(power) * 10 ** (-rng.uniform(8, 50) / 20)
    if rng.random() < 0.3:
        stream += rng.uniform(-300, 300)
    samples = np.clip(np.rint(stream), -32768, 32767).astype(np.int16)[:, None]
    packet = Packet("training", seq=0, t0_ns=0, dt_ns=round(1e9 / RATE_HZ), data=samples)
    for window in Windower(WINDOW, INFO).push(packet):
        if window.t0_ns * RATE_HZ / 1e9 + WINDOW.pre > 0.9 * LEAD_IN:  # not a noise before the word
            return window
    return None


def make_set(recordings: list[Recording], variants: int, rng: np.random.Generator) -> Rasters:
    """Each recording as it is, and ``variants`` distorted copies."""
    encoder = AudioMel(ENCODER, INFO, WINDOW.samples)
    rasters, labels = [], []
    missed = 0
    for recording in recordings:
        for copy in range(variants + 1):
            window = heard(recording.data, rng) if copy else live_window(recording, WINDOW)
            if window is None:
                missed += 1
                continue
            raster = np.empty(encoder.shape, np.uint8)
            encoder.encode(window, raster)
            rasters.append(raster)
            labels.append(int(recording.label))
    return Rasters(np.stack(rasters), np.array(labels, np.int64), missed)


def synthetic(rng: np.random.Generator) -> tuple[list[Recording], list[Recording]]:
    """Digits by espeak-ng, for training and for judging; no voice is in both."""
    held_variants = set(speech.VARIANTS[3::HELD_OUT_EVERY])
    train: list[Recording] = []
    judged: list[Recording] = []
    for voice in speech.voices():
        accent, _, variant = voice.partition("+")
        held = variant in held_variants or accent == HELD_OUT_ACCENT
        for digit, word in enumerate(WORDS):
            if rng.random() < 0.5:
                continue
            speed_wpm, pitch = int(rng.integers(110, 230)), int(rng.integers(15, 90))
            data = speech.speak(word, voice, RATE_HZ, speed_wpm=speed_wpm, pitch=pitch)[:, None]
            item = Recording(f"{word}-{voice}", LABELS[digit], voice, data, INFO)
            (judged if held else train).append(item)
    return train, judged


def mask(x: torch.Tensor) -> torch.Tensor:
    """Hide a stretch of time and of bands, so that no single cue carries a word (SpecAugment, Park et al. 2019)."""
    steps, batch, features = x.shape
    for count, groups, widest in ((steps, 1, 9), (ENCODER.bands, features // ENCODER.bands, 4)):
        first = torch.randint(0, count, (batch, 1))
        width = torch.randint(0, widest, (batch, 1)) * (torch.rand(batch, 1) < 0.5)
        at = torch.arange(count)
        keep = ((at < first) | (at >= first + width)).float()
        x = x * (keep.t()[:, :, None] if groups == 1 else keep.repeat(1, groups)[None])
    return x


def train(human: Rasters, made: Rasters, rng: np.random.Generator, *, epochs: int) -> Snn:
    rasters = np.concatenate([human.rasters, made.rasters])
    labels = np.concatenate([human.labels, made.labels])
    net = Snn(rasters.shape[2], HIDDEN, READOUT, gain=0.7, dropout=0.25)
    started = time.monotonic()

    def epoch_items(_epoch: int) -> tuple[loop.Rasters, loop.Labels]:
        order = rng.permutation(len(labels))[:EPOCH_ITEMS]
        return rasters[order], labels[order]

    def report(epoch: int, loss: float, accuracy: float) -> None:
        print(
            f"epoch {epoch:3} loss {loss:.3f} accuracy {accuracy:.4f} {time.monotonic() - started:5.0f} s", flush=True
        )

    loop.fit(
        net,
        epoch_items,
        mask,
        epochs=epochs,
        batch=128,
        peak_rate=2e-3,
        weight_decay=0.01,
        averaged_epochs=2,
        report=report,
    )
    return net


def texts(accuracy_made: float, human: int) -> Texts:
    return Texts(
        about="""
Which English digit, zero to nine, was spoken: one microphone at 8 kHz; a decision for each onset of sound, one second
after a tenth of a second before it.
""",
        data=f"""
- Free Spoken Digit Dataset, Zohar Jackson et al., CC BY-SA 4.0 (https://github.com/Jakobovski/free-spoken-digit-dataset):
  {human} training recordings of five speakers, 150 test recordings of the same speakers. Changes: cut, distorted and
  turned into spikes for training.
- Digits spoken by espeak-ng 1.51 (GPL-3.0-or-later, which does not cover its output) in several hundred voices, speeds
  and pitches.
""",
        how=f"""
`make train-spoken-digits`, seed {SEED}, {EPOCHS} epochs of {EPOCH_ITEMS} windows, all cut by the same windower as
live sound. Augmented by pitch and formant shift, pace, level, room, frequency response and noise. Encoded by
`audio_mel`. One recurrent CUBA-LIF layer of {HIDDEN[0].neurons} neurons and an integrating readout, trained with
weights on the int8 grid (straight-through), reset to zero, no bias. Decays {HIDDEN[0].k_u}/4096 (synapse) and
{HIDDEN[0].k_v}/4096 (membrane).
""",
        more=f"""
On espeak-ng voices that were not in training: int8 {accuracy_made:.4f}.

{UNSEEN}
""",
        limits="""
- Five human speakers, all men, with German, French, Greek or American accents; women and children are known to it from
  synthetic voices and pitch-shifted men only. Expect more errors for them.
- Trained on single words with silence around. Any other word or noise gets one of the ten labels as well.
- Digits spoken without a pause fall into one window and give one result.
""",
    )


def main(argv: list[str] | None = None) -> int:
    options = parser(
        "spoken_digits",
        __doc__ or "",
        "folder with manifest.csv; default: audio_fsdd",
        EPOCHS,
    )
    options.add_argument("--unseen", help="leave this speaker out of training and judge on him instead; writes nothing")
    args = options.parse_args(argv)
    return guarded(lambda: run(required("audio_fsdd", args.data), args.out, args.epochs, args.unseen))


def run(folder: Path, out: Path, epochs: int, unseen: str | None) -> None:
    """Train, judge, and unless ``unseen`` is given, write the three files. Raises ModelError."""
    recordings, judged = load(folder, "train"), load(folder, "test")
    if unseen:
        judged = [r for r in recordings + judged if r.group == unseen]
        recordings = [r for r in recordings if r.group != unseen]
        if not judged:
            raise DataError(f"{folder}: there is no speaker {unseen!r}")
    started_s = time.monotonic()
    rng = loop.start(SEED)
    made, made_judged = synthetic(rng)
    human_set = make_set(recordings, VARIANTS["human"], rng)
    made_set = make_set(made, VARIANTS["synthetic"], rng)
    print(
        f"{len(human_set.labels)} + {len(made_set.labels)} windows; {human_set.missed + made_set.missed} onsets missed",
        flush=True,
    )
    net = train(human_set, made_set, rng, epochs=epochs)
    test = make_set(judged, 0, rng)
    if unseen:
        judge(net, test, len(LABELS))
        return
    accuracy_made = judge(net, make_set(made_judged, 0, rng), len(LABELS)).accuracy_int8
    seen = Rasters(
        np.concatenate([human_set.rasters[::STATISTICS_EVERY], made_set.rasters[::STATISTICS_EVERY]]),
        np.concatenate([human_set.labels[::STATISTICS_EVERY], made_set.labels[::STATISTICS_EVERY]]),
    )
    finish(net, RECIPE, seen, test, out, texts(accuracy_made, len(recordings)), started_s)


if __name__ == "__main__":
    sys.exit(main())
