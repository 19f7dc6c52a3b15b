"""Bundles that somebody damaged or made to do harm: each is refused in one sentence, whatever it holds."""

import copy
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import bundle
from models.base import BadModel
from models.datasets.nmnist import CAMERA_INFO
from models.fused import make_fused_encoder
from models.joint import JointWindower
from models.network import write_npz
from models.registry import make_encoder, make_stream_encoder
from models.untrusted import parse_json, read_npz
from models.window import Windower
from tests.models import fusion, networks
from tests.models.sentence import one_sentence

NET = networks.random_network(np.random.default_rng(1))
FILES = (
    "CARD.md", "golden.npz", "manifest.json", "manifest.sha256", "model.onnx", "model.tflite", "model.window.onnx",
    "network.nir", "network.npz",
)  # fmt: skip
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return networks.write_bundle(tmp_path_factory.mktemp("original") / "made", NET).path


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nor this one, of two sensors."""
    return fusion.write(tmp_path_factory.mktemp("fused")).path


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "made"))


def replace(path: Path, **files: bytes) -> None:
    """Put other content into a bundle, with digests that are right: only what it means is wrong."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    content = {name: (path / name).read_bytes() for name in manifest.pop("files")}
    manifest.pop("format")
    shutil.rmtree(path)
    bundle.write(path, manifest, content | {name.replace("_", "."): content for name, content in files.items()})


def changed(path: Path, file: str, **arrays: np.ndarray | None) -> bytes:
    """An archive of the bundle with other arrays; None takes one away."""
    here = {**read_npz((path / file).read_bytes(), file), **arrays}
    return write_npz({name: array for name, array in here.items() if array is not None})


def test_these_are_all_files(original: Path) -> None:
    assert sorted(path.name for path in original.iterdir()) == sorted(FILES)


@MANY
@given(st.sampled_from(FILES), st.integers(0, 10**9), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused(original: Path, made: Path, name: str, at: int, bit: int) -> None:
    content = bytearray((original / name).read_bytes())
    content[at % len(content)] ^= 1 << bit
    (made / name).write_bytes(content)
    with one_sentence():
        bundle.load(made)
    shutil.copy(original / name, made / name)
    bundle.load(made)


@pytest.mark.parametrize("name", FILES)
def test_an_absent_file_is_named(made: Path, name: str) -> None:
    (made / name).unlink()
    with one_sentence(f"{name}: cannot be read (No such file or directory)"):
        bundle.load(made)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_or_made_longer_is_refused(original: Path, made: Path, name: str) -> None:
    content = (original / name).read_bytes()
    for other in (content[: len(content) // 2], b"", content + b"\n"):
        (made / name).write_bytes(other)
        with one_sentence(name.split(".", maxsplit=1)[0]):
            bundle.load(made)


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    path.symlink_to(path.with_suffix(".away"))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "model.onnx"])
@pytest.mark.parametrize("spoil", [_link, _folder, _pipe, _device, _huge])
def test_what_is_no_plain_file_is_not_opened(made: Path, name: str, spoil: Callable[[Path], None]) -> None:
    if spoil is _huge:
        # Never allocated: a limit on what is read must hold before the whole is.
        tracemalloc.start()
    spoil(made / name)
    with one_sentence(name):
        bundle.load(made)
    if spoil is _huge:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * bundle.MAX_FILE_BYTES


HEX = "0" * 64
WRONG: dict[str, tuple[dict[str, object], str]] = {
    "newer format": ({"format": 7}, "format 7 is newer than this axond reads (1); upgrade axond"),
    "no format": ({"format": None}, "format: "),
    "up": ({"files": {"../secret": HEX}}, "files: '../secret' must be a plain file name"),
    "upwards": ({"files": {"..": HEX}}, "files: '..' must be a plain file name"),
    "here": ({"files": {".": HEX}}, "files: '.' must be a plain file name"),
    "absolute": ({"files": {"/etc/shadow": HEX}}, "files: '/etc/shadow' must be a plain file name"),
    "folder": ({"files": {"a/b": HEX}}, "files: 'a/b' must be a plain file name"),
    "hidden": ({"files": {".bashrc": HEX}}, "must be a plain file name"),
    "itself": ({"files": {"manifest.json": HEX}}, "must be a plain file name"),
    "empty name": ({"files": {"": HEX}}, "must be a plain file name"),
    "long name": ({"files": {"a" * 300: HEX}}, "must be a plain file name"),
    "no digest": ({"files": {"network.npz": "abc"}}, "files.network.npz: "),
    "no network": ({"files": {"golden.npz": HEX}}, "files: has no network.npz; build the bundle anew"),
    "no golden vectors": ({"files": {"network.npz": HEX}}, "files: has no golden.npz; build the bundle anew"),
    "thousands of files": ({"files": {f"f{i}": HEX for i in range(5000)}}, "files: "),
    "no files": ({"files": {}}, "files: has no network.npz"),
    "twin labels": ({"labels": ["a", "b", "a"]}, "labels: two are the same"),
    "nameless label": ({"labels": ["a", "", "c"]}, "labels.1: "),
    "no channels": ({"input": {"family": "imu", "channels": [], "rate_hz": 50}}, "input.channels: "),
    "no temperature": ({"temperature": 0}, "temperature: "),
    "tiny temperature": ({"temperature": 5e-324}, "temperature: "),
    "long window": ({"window": {"mode": "time", "samples": 10**12, "hop": 1}}, "window.samples is 1000000000000"),
    "wide hop": ({"window": {"mode": "time", "samples": 9, "hop": 10**15}}, "window.hop is 1000000000000000"),
    "odd window": ({"window": {"mode": "onset", "samples": 9, "ratio": 1e200}}, "window.pre 0, ratio 1e+200"),
    "many frames": ({"window": {"mode": "onset", "samples": 9, "frames": 10**9}}, "frames of 1 to 100"),
    "unknown window": ({"window": {"mode": "time", "samples": 9, "hop": 9, "x": 1}}, "window.x: "),
    "no window": ({"window": None}, "window: expected with state 'reset'"),
    "window of a stream": ({"state": "carry"}, "window: expected with state 'reset', and with that only"),
    "long readout": ({"readout_steps": 10**9}, "readout_steps: "),
    "4 bits": ({"weight_bits": 4}, "layer 'l0' has weights of more than 4 bits"),
    "unknown key": ({"colour": "red"}, "colour: "),
    "long name of the model": ({"name": "a" * 1000}, "name: "),
    "deep encoder": ({"encoder": {"kind": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}}, "nested too deeply"),
    "control characters": ({"labels": ["a", "b", "\x1b[2Jc"]}, "text with control characters, '\\x1b"),
    "half a character": ({"labels": ["a", "b", "\ud800"]}, "text with control characters"),
    "long integer": ({"encoder": {"kind": 10**400}}, "integer of more than 64 bits"),
    "infinity": ({"temperature": float("inf")}, "a number that is not finite"),
    "no number": ({"temperature": float("nan")}, "a number that is not finite"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_manifest_says_which_key(made: Path, name: str) -> None:
    changes, sentence = WRONG[name]
    file = made / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    networks.seal(made)
    with one_sentence(sentence):
        bundle.load(made)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{\0}\0", "not JSON"),
        (b'{"name": "\xff"}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": 1, "a": 2}', "one key twice"),
        (b'{"encoder": {"a": 1, "a": 2}}', "one key twice"),
        (b'{"temperature": 1e999}', "not finite"),
        (b'{"temperature": NaN}', "not finite"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"1" * 5000, "not JSON"),
        (b" " * (bundle.MAX_MANIFEST_BYTES + 1), "larger than 1048576 bytes"),
        (b"[]", "document: "),
        (b"null", "document: "),
    ],
    ids=lambda value: repr(value)[:20] if isinstance(value, bytes) else "",
)
def test_what_is_no_manifest_is_refused(made: Path, content: bytes, sentence: str) -> None:
    (made / "manifest.json").write_bytes(content)
    networks.seal(made)
    with one_sentence(sentence):
        bundle.load(made)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["time", "onset", "carry", "reset", "imu", "audio_mel", "audio_delta", "imu_delta", "event_bins"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything inside a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*before, key)
        yield from paths(item, (*before, key))


def scrambled(original: Path, data: st.DataObject) -> str:
    """A manifest with one or two of its parts replaced by anything, or added to."""
    document = json.loads((original / "manifest.json").read_bytes())
    base = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(paths(base))))
        place: Any = document
        for key in path[:-1]:
            place = place[key] if _has(place, key) else None
        if isinstance(place, dict) and data.draw(st.booleans()):
            place[data.draw(st.text(max_size=8) | st.just(path[-1]))] = data.draw(JUNK)
        elif isinstance(place, dict) or _has(place, path[-1]):
            place[path[-1]] = data.draw(JUNK)
    return json.dumps(document)


def _has(place: Any, key: Any) -> bool:
    if isinstance(place, list):
        return isinstance(key, int) and key < len(place)
    return isinstance(place, dict) and key in place


@MANY
@given(data=st.data())
def test_a_manifest_with_anything_in_it_is_taken_or_refused_in_one_sentence(
    original: Path, made: Path, data: st.DataObject
) -> None:
    (made / "manifest.json").write_text(scrambled(original, data))
    networks.seal(made)
    try:
        loaded = bundle.load(made)
        info = networks.sensor(loaded)
        if loaded.manifest.state == "carry":
            make_stream_encoder(loaded, info)
        else:
            make_encoder(loaded, info)
            Windower(loaded.windows, info)
    except BadModel as error:
        assert str(error).isprintable()
        assert len(str(error)) < 2000


@MANY
@given(data=st.data())
def test_a_fused_manifest_with_anything_in_it_too(fused: Path, made: Path, data: st.DataObject) -> None:
    shutil.copytree(fused, made, dirs_exist_ok=True)
    (made / "manifest.json").write_text(scrambled(fused, data))
    networks.seal(made)
    infos = (fusion.AUDIO_INFO, CAMERA_INFO)
    try:
        loaded = bundle.load(made)
        make_fused_encoder(loaded, infos)
        JointWindower(loaded.manifest, infos)
    except BadModel as error:
        assert str(error).isprintable()
        assert len(str(error)) < 2000


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"shape": np.array([6, 48, 10**12])}, "of another network"),
        ({"shape": np.array([10**12, 48, 24])}, "rasters is uint8"),
        ({"shape": np.array([0, 48, 24])}, "there are none"),
        ({"shape": np.array([6])}, "there are none"),
        ({"rasters": np.zeros((6, 48, 24), np.uint8)}, "rasters is uint8 (6, 48, 24), expected uint8 (6, 48, 3)"),
        ({"u0": np.zeros((6, 20), np.int64)}, "u0 is int64 (6, 20), expected int32 (6, 20)"),
        ({"v1": np.zeros((6, 15), np.int32)}, "v1 is int32 (6, 15), expected int32 (6, 16)"),
        ({"potentials": np.zeros((6, 3), np.int32)}, "potentials is int32 (6, 3), expected int64 (6, 3)"),
        ({"spikes2": None}, "it has no array 'spikes2'"),
    ],
)
def test_golden_vectors_that_are_none_are_refused(
    made: Path, arrays: dict[str, np.ndarray | None], sentence: str
) -> None:
    replace(made, golden_npz=changed(made, "golden.npz", **arrays))
    loaded = bundle.load(made)
    with one_sentence(sentence):
        _ = loaded.golden


@MANY
@given(st.binary(max_size=200))
def test_any_bytes_as_json_are_taken_or_a_value_error(content: bytes) -> None:
    try:
        parse_json(content)
    except ValueError as error:
        assert str(error)
