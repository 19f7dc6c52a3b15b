"""A detection is one result, however many steps it lasts; and what a stream's evaluation makes of clips."""

from pathlib import Path

import nir
import numpy as np
import pytest

from drivers.packet import Packet
from models import soundscape
from models.backends.onnx import OnnxBackend
from models.backends.reference import ReferenceBackend
from models.base import BadModel
from models.build import build_graph
from models.bundle import Bundle
from models.datasets.recording import DataError, Recording, audio_info
from models.detect import Detector, DetectSpec
from models.encoders.audio_relative import AudioRelativeConfig, AudioRelativeStream
from models.evaluate_stream import detections, evaluate_stream, scores
from models.soundscape import LATE_S, Said, Scene
from models.stream import Stream
from tests.models.networks import nir_graph, random_network, write_bundle

RATE_HZ = 16000
MIC = audio_info(RATE_HZ)
STEP_NS = 20_000_000
SPEC = DetectSpec(threshold=0.8, ignore=["none"], hold_s=0.1)
ENCODER = {"kind": "audio_relative", "bands": 8, "levels_db": [-20.0], "step_db": 6.0}
LABELS = ["a", "b", "none"]
READOUT = 10
TEMPERATURE = 1e5


def told(heard: list[tuple[str, float]]) -> list[int]:
    detector = Detector(SPEC)
    return [i for i, (label, score) in enumerate(heard) if detector.hears(label, score, (i + 1) * STEP_NS)]


def test_a_run_of_steps_is_one_detection_and_the_hold_begins_with_its_last() -> None:
    quiet, heard = ("a", 0.5), ("a", 0.9)
    assert told([quiet, heard, heard, heard, quiet]) == [1]
    assert told([heard] * 3 + [quiet] * 4 + [heard] * 2) == [0]
    assert told([heard] * 3 + [quiet] * 5 + [heard] * 2) == [0, 8]
    assert told([heard, ("b", 0.99)]) == [0]


def test_what_is_ignored_or_below_the_threshold_is_no_detection_and_holds_nothing() -> None:
    assert told([("none", 1.0)] * 3 + [("a", 0.8)]) == [3]
    assert told([("a", 0.7999)] * 9) == []


def test_after_time_went_back_everything_is_new() -> None:
    detector = Detector(SPEC)
    assert detector.hears("a", 0.9, 10**12)
    assert detector.hears("a", 0.9, 5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("stream")
    nir.write(str(folder / "network.nir"), nir_graph(np.random.default_rng(3), features=24, hidden=16, dt=0.02))
    recipe = {
        "name": "made",
        "version": "1.0.0",
        "input": {"family": "audio", "channels": ["mono"], "rate_hz": RATE_HZ},
        "encoder": ENCODER,
        "labels": LABELS,
        "state": "carry",
        "readout_steps": READOUT,
        "temperature": TEMPERATURE,
        "detect": SPEC.model_dump(),
    }
    return build_graph(folder / "network.nir", folder / "bundle", recipe).bundle


def clip(label: str, seed: int, seconds: float = 1.0) -> Recording:
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE_HZ)
    burst = np.repeat(10 ** rng.uniform(0, 3.5, -(-count // 1600)), 1600)[:count]
    data = np.rint(rng.normal(0, 1, count) * burst).astype(np.int16)[:, None]
    return Recording(f"{label}-{seed}", label, "", data, MIC)


def test_clips_are_judged_by_what_a_live_stream_says(bundle: Bundle) -> None:
    clips = [clip("ab"[i % 2], i) for i in range(8)]
    backend = OnnxBackend()
    backend.load(bundle)
    found = evaluate_stream(bundle, backend, clips)
    best, hits, false_alarms = [], 0, 0
    for one in clips:
        stream = Stream(bundle, backend, MIC)
        silence = np.zeros((READOUT * 320, 1), np.int16)
        packets = np.array_split(np.concatenate([one.data, silence]), 40)
        inferences, at = [], 0
        for seq, part in enumerate(packets):
            inferences += list(stream.push(Packet("mic", seq, at * 62_500, 62_500, part)))
            at += len(part)
        words = [i for i in inferences if i.label != "none"]
        best.append(max(words, key=lambda i: i.score).label if words else None)
        detector = Detector(SPEC)
        labels = [i.label for i in inferences if detector.hears(i.label, i.score, i.end_ns)]
        hits += one.label in labels
        false_alarms += len(labels) - (one.label in labels)
    backend.close()
    assert (found.total, found.no_window) == (8, 0)
    assert None not in best
    assert found.correct == sum(label == one.label for label, one in zip(best, clips, strict=True))
    assert found.hits == hits
    assert found.false_alarms == false_alarms > 0
    assert found.confusion.sum() == 8
    assert found.seconds == pytest.approx(8)


def test_scores_are_those_of_the_stream_and_detections_those_of_the_detector(bundle: Bundle) -> None:
    backend = ReferenceBackend()
    backend.load(bundle)
    stream = Stream(bundle, backend, MIC)
    one = clip("a", 5, 2.0)
    inferences = list(stream.push(Packet("mic", 0, 0, 62_500, one.data)))
    raster = stream_raster(one)
    found = scores(backend.infer(raster).astype(np.float64), READOUT, bundle.manifest.temperature)
    assert [i.score for i in inferences] == pytest.approx(found.max(axis=1).tolist(), abs=1e-4)
    assert [i.label for i in inferences] == [LABELS[i] for i in found.argmax(axis=1)]
    detector = Detector(SPEC)
    mine = [n for n, i in enumerate(inferences) if detector.hears(i.label, i.score, i.end_ns)]
    assert [step for step, _ in detections(Detector(SPEC), found, LABELS, STEP_NS)] == mine != []


def stream_raster(one: Recording) -> np.ndarray:
    settings = {key: value for key, value in ENCODER.items() if key != "kind"}
    return AudioRelativeStream(AudioRelativeConfig.model_validate(settings), MIC).steps(one.data[:, 0].astype(np.int64))


def test_unknown_labels_and_a_detect_that_ignores_strangers_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    backend = ReferenceBackend()
    backend.load(bundle)
    with pytest.raises(BadModel, match="zebra"):
        evaluate_stream(bundle, backend, [clip("zebra", 1)])
    with pytest.raises(BadModel, match=r"detect\.ignore: 'zebra'"):
        write_bundle(
            tmp_path / "other",
            random_network(np.random.default_rng(3), features=24),
            detect={"threshold": 0.6, "ignore": ["zebra"], "hold_s": 0.2},
        )


def test_a_soundscape_has_every_word_at_its_level_and_says_where() -> None:
    words, noises = [clip(label, i) for i, label in enumerate("aabb")], [clip("noise", 50 + i) for i in range(3)]
    made = soundscape.scenes(words, noises, np.random.default_rng(1), scene_s=3.0, snr_db=20.0)
    first = [next(made) for _ in range(4)]
    assert sorted(scene.said.label for scene in first) == ["a", "a", "b", "b"]
    again = soundscape.scenes(words, noises, np.random.default_rng(1), scene_s=3.0, snr_db=20.0)
    for n, scene in enumerate(first):
        assert np.array_equal(next(again).samples, scene.samples)
        assert len(scene.samples) == 3 * RATE_HZ
        assert 3 * n <= scene.said.begin_s <= scene.said.end_s - 1 <= 3 * n + 2
        begin = round((scene.said.begin_s - 3 * n) * RATE_HZ)
        heard = scene.samples[begin : begin + RATE_HZ, 0].astype(float)
        word = min((w.data[:, 0] for w in words), key=lambda w: np.std(heard - w))
        loudest = np.sort((word.astype(float).reshape(10, -1) ** 2).mean(axis=1))[-5:].mean()
        assert 10 * np.log10(loudest / np.var(heard - word)) == pytest.approx(20, abs=0.2)


def test_clips_that_do_not_fit_are_refused() -> None:
    slow = Recording("slow", "x", "", np.zeros((10, 1), np.int16), audio_info(8000))
    for words, noises in (([clip("a", 1, 4.0)], [clip("n", 2)]), ([clip("a", 1)], [slow])):
        with pytest.raises(DataError):
            next(soundscape.scenes(words, noises, np.random.default_rng(0), scene_s=3.0, snr_db=10.0))


def test_every_detection_is_a_hit_a_wrong_word_or_a_false_alarm() -> None:
    said = [Said("a", 2, 3), Said("b", 10, 11)]
    heard = [(1.0, "a"), (2.5, "a"), (2.9, "a"), (3 + LATE_S, "b"), (3.1 + LATE_S, "a"), (10.5, "a"), (11.2, "b")]
    found = soundscape.score(said, heard)
    assert (found.hits, found.wrong, found.false_alarms, found.said) == (2, 3, 2, 2)


def test_listening_tells_what_the_stream_detects_at_its_time(bundle: Bundle) -> None:
    backend = ReferenceBackend()
    backend.load(bundle)
    pieces = [clip("a", n, 1.0).data for n in range(3)]
    scenes = [Scene(data, MIC, Said("a", float(n), n + 1.0)) for n, data in enumerate(pieces)]
    heard = [
        one
        for _, found in soundscape.listen(Stream(bundle, backend, MIC), Detector(SPEC), iter(scenes))
        for one in found
    ]
    detector = Detector(SPEC)
    whole = Stream(bundle, backend, MIC).push(Packet("mic", 0, 0, 62_500, np.concatenate(pieces)))
    expected = [(i.end_ns / 1e9, i.label) for i in whole if detector.hears(i.label, i.score, i.end_ns)]
    assert [label for _, label in heard] == [label for _, label in expected]
    assert [at for at, _ in heard] == pytest.approx([at for at, _ in expected])
    assert heard
