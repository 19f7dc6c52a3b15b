"""Bundles: what they hold, and every way in which one can be wrong."""

import json
from pathlib import Path

import nir
import numpy as np
import pytest

from drivers.packet import SensorInfo
from models import bundle, network
from models.base import BackendUnavailable, BadModel
from models.build import build
from models.registry import find_bundle, make_backend, make_encoder
from models.select import load_backend, softmax
from tests.models import networks

NET = networks.random_network(np.random.default_rng(1))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return networks.write_bundle(tmp_path / "made", NET).path


def edit_manifest(path: Path, **changes: object) -> None:
    file = path / "manifest.json"
    document = json.loads(file.read_text())
    document.update(changes)
    file.write_text(json.dumps(document))
    networks.seal(path)


def test_what_was_written_is_read_back(made: Path) -> None:
    again = bundle.load(made)
    assert again.id == "made@1.0.0"
    for mine, theirs in zip(again.network.layers, NET.layers, strict=True):
        for field in ("w_in", "w_rec", "k_u", "k_v", "bias", "v_th"):
            assert np.array_equal(getattr(mine, field), getattr(theirs, field))
    assert again.golden.rasters.shape == (6, 48, 24)
    assert [spikes.any() for spikes in again.golden.spikes] == [True, True, False]


def test_the_same_network_gives_the_same_bytes(tmp_path: Path, made: Path) -> None:
    twin = networks.write_bundle(tmp_path / "twin", NET).path
    assert all(
        (made / f).read_bytes() == (twin / f).read_bytes() for f in ("manifest.json", "model.onnx", "golden.npz")
    )


@pytest.mark.parametrize("name", ["network.npz", "model.onnx", "golden.npz", "CARD.md"])
def test_one_flipped_bit_is_found(made: Path, name: str) -> None:
    content = bytearray((made / name).read_bytes())
    content[len(content) // 2] ^= 4
    (made / name).write_bytes(content)
    with pytest.raises(BadModel, match=rf"{name}: SHA-256 is .* the manifest says .* restore the bundle"):
        bundle.load(made)


def test_a_missing_file_is_named(made: Path) -> None:
    (made / "golden.npz").unlink()
    with pytest.raises(BadModel, match=r"golden.npz: cannot be read \(No such file"):
        bundle.load(made)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "format 2 is newer than this axond reads"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"labels": ["one"]}, "labels: "),
        ({"labels": ["a", "b"]}, "2 labels for a network with 3 outputs"),
        ({"temperature": 0}, "temperature: "),
        ({"files": {"../secret": "00" * 32}}, "files: '../secret' must be a plain file name"),
        ({"window": {"mode": "time", "samples": 0, "hop": 1}}, "window.samples is 0"),
    ],
)
def test_a_wrong_manifest_is_one_sentence(made: Path, changes: dict[str, object], sentence: str) -> None:
    edit_manifest(made, **changes)
    with pytest.raises(BadModel, match=sentence.replace(".", r"\.")) as error:
        bundle.load(made)
    assert "\n" not in str(error.value)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"manifest.json: cannot be read"):
        bundle.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BadModel, match=r"manifest.json: not JSON"):
        bundle.load(tmp_path)


def test_an_archive_with_pickles_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", layers=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BadModel, match=r"evil\.npz: its array 'layers' is of type '\|O', which has no place there"):
        network.load((tmp_path / "evil.npz").read_bytes(), "evil.npz")


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "important").mkdir()
    (tmp_path / "important" / "thesis.txt").write_text("mine")
    with pytest.raises(BadModel, match=r"important: exists and is no bundle"):
        networks.write_bundle(tmp_path / "important", NET)
    assert (tmp_path / "important" / "thesis.txt").read_text() == "mine"


def test_golden_vectors_must_be_there(made: Path, tmp_path: Path) -> None:
    files = {name: (made / name).read_bytes() for name in bundle.load(made).manifest.files}
    golden = bundle.load(made).golden
    none = bundle.Golden(
        golden.rasters[:0],
        tuple(a[:0] for a in golden.spikes),
        tuple(a[:0] for a in golden.u),
        tuple(a[:0] for a in golden.v),
        golden.potentials[:0],
    )
    files["golden.npz"] = network.write_npz(bundle.pack_golden(none))
    with pytest.raises(BadModel, match=r"golden.npz: not golden vectors of this network"):
        load_backend(bundle.write(tmp_path / "none", networks.manifest(NET), files), "onnx")


def test_a_current_that_leaves_32_bits_is_refused() -> None:
    one = np.ones(1, np.int32)
    layer = network.Layer("slow", np.full((1, 700), 127, np.int8), None, 4096 * one, 0 * one, 0 * one, None)
    with pytest.raises(BadModel, match=r"layer 'slow': the current of neuron 0 can leave 32 bits"):
        network.check(network.Network((layer,)))


def test_a_failed_write_leaves_the_old_bundle(made: Path) -> None:
    before = (made / "manifest.json").read_bytes()
    with pytest.raises(BadModel):
        networks.write_bundle(made, NET, labels=["too", "few"])
    assert (made / "manifest.json").read_bytes() == before
    assert [p.name for p in made.parent.iterdir()] == ["made"]


def test_the_sensor_must_fit(made: Path) -> None:
    microphone = SensorInfo("audio", ("mono",), ("FS",), (1.0,), 8000.0)
    with pytest.raises(
        BadModel, match=r"wants imu of 6 channels \(ax, .*\) at 50 Hz, but the sensor gives audio of 1 channel"
    ):
        make_encoder(bundle.load(made), microphone)


def test_auto_takes_the_first_backend_that_is_right(made: Path) -> None:
    kind, backend = load_backend(bundle.load(made), "auto")
    backend.close()
    assert kind == "onnx"


def test_auto_falls_back_when_the_compiled_graph_is_wrong(made: Path, tmp_path: Path) -> None:
    """model.onnx of another network: its digest is right, its spikes are not."""
    other = networks.write_bundle(tmp_path / "other", networks.random_network(np.random.default_rng(2)))
    files = {name: (made / name).read_bytes() for name in bundle.load(made).manifest.files}
    files |= {name: other.artefact(name) for name in ("model.onnx", "model.tflite")}
    mixed = bundle.write(tmp_path / "mixed", networks.manifest(NET), files)
    with pytest.raises(BadModel, match=r"answers golden vector 0 differently"):
        load_backend(mixed, "onnx")
    kind, _ = load_backend(mixed, ["onnx", "tflite", "reference"])
    assert kind == "reference"


def test_garbage_instead_of_a_graph_is_a_bad_model(made: Path, tmp_path: Path) -> None:
    files = {name: (made / name).read_bytes() for name in bundle.load(made).manifest.files}
    files["model.onnx"] = b"\x08\x01garbage"
    mixed = bundle.write(tmp_path / "mixed", networks.manifest(NET), files)
    with pytest.raises(BadModel, match=r"model.onnx is no graph of axond"):
        load_backend(mixed, "onnx")


def test_unknown_names_come_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"unknown backend 'abacus'; there are .*onnx, .*reference"):
        make_backend("abacus")
    networks.write_bundle(tmp_path / "left-right", NET, name="left-right")
    with pytest.raises(BadModel, match=r"no model 'left-rihgt'; .*; did you mean 'left-right'"):
        find_bundle("left-rihgt", [tmp_path])


def test_building_from_a_graph(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    nir.write(str(source / "network.nir"), networks.nir_graph(np.random.default_rng(3)))
    drop = ("weight_bits", "granularity")
    recipe = {k: v for k, v in networks.manifest(NET).items() if k not in drop}
    (source / "recipe.json").write_text(json.dumps(recipe))
    (source / "CARD.md").write_text("# made\n")
    built = build(source, tmp_path / "built")
    load_backend(built, "onnx")[1].close()
    assert built.network.features == 6


def test_softmax_is_safe_for_large_potentials() -> None:
    scores = softmax(np.array([1 << 40, 0, -(1 << 40)]), 1000.0)
    assert scores.tolist() == [1.0, 0.0, 0.0]


def test_a_swap_that_fails_half_way_brings_the_old_bundle_back(made: Path, tmp_path: Path) -> None:
    before = bundle.load(made).digest
    with pytest.raises(FileNotFoundError):
        bundle._swap(made, tmp_path / "not there", tmp_path / "old")
    assert bundle.load(made).digest == before
