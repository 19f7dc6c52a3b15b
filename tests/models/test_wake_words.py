"""The shipped ``wake-words`` in minutes of recorded sounds with recorded words in them."""

from itertools import islice

import numpy as np
import pytest

from models import soundscape
from models.datasets.load import find, load
from models.datasets.recording import Recording
from models.detect import Detector
from models.registry import open_bundle
from models.select import load_backend
from models.stream import Stream

SCENES = 24


def recordings(name: str) -> list[Recording]:
    folder = find(name)
    if folder is None:
        pytest.skip(f"no recordings: {name} is neither in AXOND_DATA nor in ../shared/data")
    return load(folder, "test")


def test_words_are_heard_among_sounds_and_sounds_are_not_words() -> None:
    bundle = open_bundle("wake-words", [])
    clips, noises = recordings("audio_wakewords"), recordings("audio_esc10")
    assert bundle.manifest.detect is not None
    _, backend = load_backend(bundle, "onnx")
    source = soundscape.scenes(clips, noises, np.random.default_rng(7), scene_s=15.0, snr_db=20.0)
    stream, detector = Stream(bundle, backend, clips[0].info), Detector(bundle.manifest.detect)
    said, heard = [], []
    for word, detections in islice(soundscape.listen(stream, detector, source), SCENES):
        said.append(word)
        heard += detections
    backend.close()
    found = soundscape.score(said, heard)
    assert found.hits / found.said >= 0.75
    assert found.false_alarms <= 1
