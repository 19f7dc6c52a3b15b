"""A word detector through hours of continuous sound, as fast as it goes: hits, false alarms, memory, CPU time."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from agent.cli.command import CommandError
from hil.bench.process import pss_mib
from models import soundscape, speech
from models.base import ModelError
from models.bundle import Bundle
from models.datasets.load import find, load
from models.datasets.recording import Recording, audio_info
from models.detect import Detector
from models.registry import open_bundle
from models.select import load_backend
from models.stream import Stream
from models.train.augment import coloured_noise

SCENE_S = 15.0
"""A word in each: 240 in an hour."""
SEED = 11
SETTLE_SCENES = 4
"""Memory is first looked at after so many, when everything was used once."""
MOST_GROWTH_MIB = 4.0
MOST_FALSE_ALARMS_PER_HOUR = 1.0
LEAST_HITS = 0.8
MADE_VOICES = 8
"""Per word, where there are no recordings."""
MADE_NOISES = 40
MADE = "no recordings"


def measure(hours: float, name: str, data: Path | None, noise: Path | None, snr_db: float) -> dict[str, Any]:
    """All numbers of one run. Too few hits of recorded words and too many false alarms are ``faults``.

    ``data`` and ``noise``: folders of labelled sounds, whose ``test`` parts are taken; None: the sets of wake words and
    of ESC-10 where they are found, else words by espeak-ng and made noise. Raises CommandError.
    """
    try:
        bundle = open_bundle(name, [])
        clips, said_by = _clips(bundle, data)
        noises, noise_of = _noises(clips[0], noise)
        numbers = _listen(bundle, clips, noises, hours, snr_db) | {"words": said_by, "noise": noise_of}
    except ModelError as error:
        raise CommandError(str(error)) from error
    if numbers["hit_rate"] < LEAST_HITS and MADE not in said_by:
        numbers["faults"].append(f"{numbers['hit_rate']:.0%} hits, fewer than {LEAST_HITS:.0%}")
    if numbers["false_alarms_per_hour"] > MOST_FALSE_ALARMS_PER_HOUR:
        numbers["faults"].append(f"{numbers['false_alarms_per_hour']} false alarms per hour")
    return numbers


def _listen(
    bundle: Bundle, clips: list[Recording], noises: list[Recording], hours: float, snr_db: float
) -> dict[str, Any]:
    detect = bundle.manifest.detect
    if detect is None or bundle.manifest.state != "carry":
        raise CommandError(f"{bundle.id} is no detector on a stream: its manifest has no part detect, or windows")
    kind, backend = load_backend(bundle, "auto")
    count = max(3 * SETTLE_SCENES, round(hours * 3600 / SCENE_S))
    source = soundscape.scenes(clips, noises, np.random.default_rng(SEED), scene_s=SCENE_S, snr_db=snr_db)
    memory: dict[str, float] = {}
    said, heard = [], []
    try:
        stream = Stream(bundle, backend, clips[0].info)
        stream.warm_up()
        start_s, start_cpu_s = time.monotonic(), time.process_time()
        for word, detections in soundscape.listen(stream, Detector(detect), source):
            said.append(word)
            heard += detections
            if len(said) in (SETTLE_SCENES, count // 2, count):
                memory[("start", "middle", "end")[len(memory)]] = pss_mib(os.getpid())
            if len(said) == count:
                break
        took_s, cpu_s = time.monotonic() - start_s, time.process_time() - start_cpu_s
    finally:
        backend.close()
    found = soundscape.score(said, heard)
    listened_h = count * SCENE_S / 3600
    growth_mib = memory["end"] - memory["start"]
    numbers: dict[str, Any] = {
        "bundle": bundle.id,
        "backend": kind,
        "hours": round(listened_h, 3),
        "snr_db": snr_db,
        "said": found.said,
        "hits": found.hits,
        "hit_rate": round(found.hits / found.said, 4),
        "false_alarms": found.false_alarms,
        "false_alarms_per_hour": round(found.false_alarms / listened_h, 2),
        "wrong_words": found.wrong,
        "wrong_words_per_hour": round(found.wrong / listened_h, 2),
        "threshold": detect.threshold,
        **{f"pss_{when}_mib": value for when, value in memory.items()},
        "cpu_s": round(cpu_s, 1),
        "cpu_share_of_a_core_live": round(cpu_s / (count * SCENE_S), 4),
        "times_faster_than_live": round(count * SCENE_S / took_s, 1),
    }
    faults = []
    if growth_mib > MOST_GROWTH_MIB:
        faults.append(f"memory grew by {growth_mib:.1f} MiB, more than {MOST_GROWTH_MIB:g}")
    numbers["faults"] = faults
    return numbers


def _clips(bundle: Bundle, folder: Path | None) -> tuple[list[Recording], str]:
    folder = folder or find("audio_wakewords")
    if folder is not None:
        return load(folder, "test"), f"{folder}, test part"
    info = audio_info(bundle.manifest.sole.input.rate_hz)
    ignored = () if bundle.manifest.detect is None else bundle.manifest.detect.ignore
    rng = np.random.default_rng(SEED)
    clips = []
    for label in bundle.manifest.labels:
        for voice in () if label in ignored else rng.choice(speech.voices(), MADE_VOICES, replace=False).tolist():
            wave = speech.speak(label.replace("_", " "), voice, round(info.rate_hz))[:, None]
            clips.append(Recording(f"{label}-{voice}", label, voice, wave, info))
    return clips, f"espeak-ng voices, {MADE}"


def _noises(like: Recording, folder: Path | None) -> tuple[list[Recording], str]:
    folder = folder or find("audio_esc10")
    if folder is not None:
        return load(folder, "test"), f"{folder}, test part"
    rng = np.random.default_rng(SEED)
    noises = []
    for i in range(MADE_NOISES):
        wave = coloured_noise(round(like.info.rate_hz), rng) * 10 ** rng.uniform(1.5, 3.5)
        noises.append(Recording(f"noise-{i}", "noise", "", wave.astype(np.int16)[:, None], like.info))
    return noises, f"coloured noise, {MADE}"
