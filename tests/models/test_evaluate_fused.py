"""Recordings of two sensors, paired by label, as a live fused pipeline would see them."""

import json
import re
from pathlib import Path

import nir
import numpy as np
import pytest
import soundfile

from models.build import build
from models.bundle import Bundle
from models.datasets.nmnist import CAMERA_INFO
from models.datasets.recording import DataError, Recording
from models.evaluate_fused import code_pairs, load_pairs, pair_by_label
from models.fused import make_fused_encoder
from tests.end_to_end.rig import axond
from tests.models import fusion, networks
from tests.models.fusion import AUDIO_INFO

LABELS = ("c0", "c1", "c2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fusion.write(tmp_path_factory.mktemp("fused"))


def sounds(count: int) -> list[Recording]:
    data = fusion.sound(0.5, (0.05,))
    return [Recording(f"{i}.wav", LABELS[i % 3], f"speaker{i % 2}", data + i, AUDIO_INFO) for i in range(count)]


def sights(count: int) -> list[Recording]:
    return [Recording(f"{i}.bs2", LABELS[i % 3], "", fusion.flashes((0.0,)), CAMERA_INFO) for i in range(count)]


def names(pairs: list) -> list[list[str]]:
    return [[one.name for one in pair if one] for pair in pairs]


def test_every_recording_of_the_longer_list_is_there_once() -> None:
    pairs = pair_by_label([sounds(12), sights(6)])
    assert len(pairs) == 12
    assert all(sound.label == sight.label for sound, sight in pairs)
    assert sorted(sound.name for sound, _ in pairs) == sorted(one.name for one in sounds(12))
    assert [sorted(sight.name for _, sight in pairs).count(f"{i}.bs2") for i in range(6)] == [2] * 6
    assert names(pairs) == names(pair_by_label([sounds(12), sights(6)]))
    assert names(pairs) != names(pair_by_label([sounds(12), sights(6)], seed=2))


def test_a_label_of_one_list_only_is_refused() -> None:
    with pytest.raises(DataError, match="label 'c2' has no recording for input 1"):
        pair_by_label([sounds(6), sights(2)])


@pytest.mark.parametrize(("without", "quality"), [((), 1.0), (("audio",), 0.5), (("events",), 0.5)])
def test_an_input_may_be_left_out(made: Bundle, without: tuple[str, ...], quality: float) -> None:
    pairs = [
        tuple(None if name in without else one for name, one in zip(("audio", "events"), pair, strict=True))
        for pair in pair_by_label([sounds(6), sights(6)])
    ]
    coded, mean = code_pairs(made, pairs)
    assert coded.heard.all()
    assert mean == pytest.approx(quality)
    columns = make_fused_encoder(made, (AUDIO_INFO, CAMERA_INFO)).columns
    for name, part in zip(("audio", "events"), columns, strict=True):
        assert coded.rasters[:, :, part].any() == (name not in without)
    assert coded.labels == [next(r.label for r in pair if r) for pair in pairs]
    assert set(coded.groups) == ({""} if "audio" in without else {"speaker0", "speaker1"})


def folders(place: Path) -> tuple[Path, Path]:
    """The same as files."""
    audio, events = place / "audio", place / "events"
    for folder in (audio, events):
        folder.mkdir(parents=True)
    rows = ["file,label,split,speaker"]
    for one in sounds(6):
        soundfile.write(audio / one.name, one.data[:, 0], 8000, subtype="PCM_16")
        rows.append(f"{one.name},{one.label},test,{one.group}")
    (audio / "manifest.csv").write_text("\n".join(rows) + "\n")
    rows = ["file,label,split"]
    for one in sights(6):
        found = one.data
        t_us = found["t_ns"] // 1000
        words = np.stack(
            [found["x"] % 34, found["y"] % 34, (found["on"] << 7) | (t_us >> 16), t_us >> 8 & 255, t_us & 255], axis=1
        )
        (events / one.name).write_bytes(words.astype(np.uint8).tobytes())
        rows.append(f"{one.name},{one.label},test")
    (events / "labels.csv").write_text("\n".join(rows) + "\n")
    return audio, events


def test_folders_in_any_order_or_in_one(made: Bundle, tmp_path: Path) -> None:
    audio, events = folders(tmp_path / "data")
    wanted = load_pairs(made.manifest, [audio, events], "test")
    assert names(wanted) == names(load_pairs(made.manifest, [events, audio], "test"))
    assert len(load_pairs(made.manifest, [tmp_path / "data"], "test")) == 6
    assert all(pair[0] is None for pair in load_pairs(made.manifest, [audio, events], "test", ["audio"]))
    with pytest.raises(DataError, match="input 'audio' of made-fused wants one folder with audio of 1 channel"):
        load_pairs(made.manifest, [audio, audio], "test")
    with pytest.raises(DataError, match="has no such input; there are audio, events"):
        load_pairs(made.manifest, [audio, events], "test", ["imu"])
    with pytest.raises(DataError, match="nothing is left"):
        load_pairs(made.manifest, [audio, events], "test", ["audio", "events"])


def test_built_evaluated_and_described(tmp_path: Path) -> None:
    """What a person does: build a fused bundle from its recipe, evaluate it, look at it."""
    source, out = tmp_path / "source", tmp_path / "bundle"
    source.mkdir()
    nir.write(source / "network.nir", networks.nir_graph(np.random.default_rng(2), features=120 + 2 * 8 * 8))
    recipe = fusion.recipe(fusion.AUDIO, {**fusion.EVENTS, "rate_range": [50, 3000]})
    (source / "recipe.json").write_text(json.dumps(recipe))
    (source / "CARD.md").write_text("# made\n")
    assert build(source, out).manifest.late_ms == fusion.LATE_MS
    folders(tmp_path / "data")
    command = ("model", "eval", str(out), "--data", str(tmp_path / "data"), "--json", "--backend", "reference")
    done = axond(*command)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["total"], facts["no_window"], facts["quality"], facts["per"]) == (6, 0, 1.0, "pair")
    assert facts["groups"].keys() == {"speaker0", "speaker1"}
    alone = json.loads(axond(*command, "--without", "events").stdout)
    assert (alone["quality"], alone["without"]) == (0.5, ["events"])
    refused = axond(*command, "--without", "smell")
    assert refused.returncode != 0
    assert "there are audio, events" in refused.stderr
    page = tmp_path / "page.html"
    told = axond("model", "report", str(out), "--data", str(tmp_path / "data"), "--seconds", "0.01", "-o", str(page))
    assert told.returncode == 0, told.stderr
    assert "<h2>Accuracy on data, part test</h2>" in page.read_text()
    assert re.search(r"<td>int8</td><td>\d of 6</td>", page.read_text())
    shown = axond("model", "info", str(out)).stdout
    assert "input   events: event_camera" in shown
    assert "spikes  50 to 3000" in shown
    assert "waits 150 ms" in shown
    replayed = axond("replay", "--model", str(out), str(tmp_path / "data" / "audio" / "0.wav"))
    assert replayed.returncode != 0
    assert "fuses 2 sensors" in replayed.stderr
    assert "Traceback" not in replayed.stderr
