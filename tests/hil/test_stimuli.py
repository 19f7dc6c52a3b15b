"""What the demo plays: made inputs where there are no recordings, and the truth about either."""

import shutil

import numpy as np
import pytest

from hil.demo import stimuli
from models.datasets.load import find


@pytest.fixture
def no_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stimuli, "find", lambda name: None)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_made_words(no_recordings: None) -> None:
    words = stimuli.digits(6.0, seed=2)
    assert words.source.startswith("made: digits spoken by espeak-ng")
    assert len(words.data) >= 6 * 8000
    assert {span.label for span in words.truth} <= set("0123456789")
    loud = [np.abs(words.data[span.start : span.stop]).max() for span in words.truth]
    assert min(loud) > 1000
    between = words.data[words.truth[0].stop : words.truth[1].start]
    assert np.abs(between).max() < 20


def test_made_motion(no_recordings: None) -> None:
    motion = stimuli.body_motion(30.0, seed=2)
    assert motion.source.startswith("made: motion from a kinematic model")
    assert motion.data.shape[1] == 6
    assert len(motion.data) >= 30 * 50
    assert motion.truth[0].start == 0
    assert all(a.stop == b.start for a, b in zip(motion.truth, motion.truth[1:], strict=False))


def test_the_same_seed_gives_the_same_motion(no_recordings: None) -> None:
    assert np.array_equal(stimuli.body_motion(5.0, 3).data, stimuli.body_motion(5.0, 3).data)


@pytest.mark.skipif(find("audio_fsdd") is None, reason="no recordings: audio_fsdd is not on this machine")
def test_recorded_words() -> None:
    words = stimuli.digits(20.0, seed=1)
    assert words.source.startswith("recordings (")
    assert len({span.label for span in words.truth}) > 3


@pytest.mark.skipif(find("imu_uci_har") is None, reason="no recordings: imu_uci_har is not on this machine")
def test_recorded_motion() -> None:
    motion = stimuli.body_motion(60.0, seed=1)
    assert motion.source.startswith("recordings (")
    assert min(span.stop - span.start for span in motion.truth) >= 128
