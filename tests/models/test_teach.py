"""A label more from five examples, in one row of the last layer; and back, to the bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models import batch, build, nir_graph, speech, statistics, teach
from models.base import BadModel, Window
from models.bundle import MANIFEST, Bundle, load, write
from models.calibrate import calibrate
from models.datasets import load as datasets
from models.datasets.ranges import ring_info
from models.datasets.recording import Recording, audio_info, live_window
from models.examples import COPIES, copies
from models.network import write_npz
from models.registry import make_encoder, open_bundle
from models.select import load_kind
from models.undo import PARENT, undo
from models.untrusted import read_npz
from tests.models import sounds

NEW_HZ = 3000.0
JUDGED = 40


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return sounds.make(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def child(parent: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return taught(parent, tmp_path_factory.mktemp("child") / "child")


def examples(centre_hz: float, seed: int = 1) -> list[Window]:
    rng = np.random.default_rng(seed)
    return [sounds.window(sounds.sound(centre_hz, rng)) for _ in range(5)]


def taught(parent: Bundle, out: Path) -> Bundle:
    return teach.teach(parent, "whistle", examples(NEW_HZ), out, user=False).bundle


def accuracy(bundle: Bundle, windows: list[Window], truth: npt.NDArray[np.int64]) -> float:
    said = batch.run(bundle.network, sounds.rasters(bundle, windows))[0].argmax(axis=1)
    return float((said == truth).mean())


def same_files(one: Path, other: Path) -> bool:
    mine, theirs = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, other))
    return mine == theirs


def test_a_new_label_is_found_and_the_others_stay(parent: Bundle, child: Bundle) -> None:
    rng = np.random.default_rng(9)
    fresh = [sounds.window(sounds.sound(NEW_HZ, rng)) for _ in range(JUDGED)]
    windows, truth = sounds.labelled(rng, JUDGED)
    assert child.manifest.labels == [*parent.manifest.labels, "whistle"]
    before = accuracy(parent, windows, truth)
    assert before > 0.9
    assert accuracy(child, fresh, np.full(JUDGED, 3)) >= 0.8
    assert accuracy(child, windows, truth) >= before - 0.02


def test_all_but_the_new_row_is_the_parents(parent: Bundle, child: Bundle) -> None:
    for mine, theirs in zip(child.network.layers[:-1], parent.network.layers[:-1], strict=True):
        assert (mine.w_in == theirs.w_in).all() and (mine.v_th == theirs.v_th).all()
    assert (child.network.layers[-1].w_in[:-1] == parent.network.layers[-1].w_in).all()
    assert child.manifest.temperature == parent.manifest.temperature


def test_a_child_names_its_parent_and_is_a_whole_bundle(parent: Bundle, child: Bundle) -> None:
    assert child.id == "sounds@1.1.0"
    assert child.manifest.parent is not None
    assert (child.manifest.parent.id, child.manifest.parent.digest) == (parent.id, parent.digest)
    assert {"model.onnx", "network.nir", "golden.npz", "CARD.md"} <= child.manifest.files.keys()
    card = child.artefact("CARD.md")
    assert card.startswith(b"# sounds 1.1.0\n") and b"'whistle' from 5 examples" in card
    load_kind(child, "onnx").close()  # replays the new golden vectors


def test_the_graph_of_a_child_gives_its_integers(child: Bundle) -> None:
    again = calibrate(nir_graph.read(child.path / "network.nir"), "layer", 8).network
    assert all((a.w_in == b.w_in).all() for a, b in zip(again.layers, child.network.layers, strict=True))


def test_undo_returns_the_parent_to_the_bit(parent: Bundle, child: Bundle, tmp_path: Path) -> None:
    again = undo(child, tmp_path / "again")
    assert again.digest == parent.digest
    assert same_files(again.path, parent.path)


def test_a_child_can_be_taught_and_undone_step_by_step(parent: Bundle, child: Bundle, tmp_path: Path) -> None:
    grandchild = teach.teach(child, "rumble", examples(130.0, seed=3), tmp_path / "two", user=False).bundle
    assert grandchild.manifest.labels[-2:] == ["whistle", "rumble"] and grandchild.id == "sounds@1.2.0"
    back = undo(grandchild, tmp_path / "one")
    assert same_files(back.path, child.path)
    assert same_files(undo(back, tmp_path / "none").path, parent.path)


def test_the_same_lesson_gives_the_same_integers(parent: Bundle, child: Bundle, tmp_path: Path) -> None:
    assert (taught(parent, tmp_path / "again").network.layers[-1].w_in == child.network.layers[-1].w_in).all()


def test_another_user_of_a_known_label(parent: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    windows, truth = sounds.labelled(rng, JUDGED)
    odd_hz = 2500.0
    odd = [sounds.window(sounds.sound(odd_hz, rng)) for _ in range(JUDGED)]
    middle = np.full(JUDGED, 1)
    assert accuracy(parent, odd, middle) < 0.5
    new = teach.teach(parent, "middle", examples(odd_hz), tmp_path / "user", user=True).bundle
    assert new.manifest.labels == parent.manifest.labels
    assert accuracy(new, odd, middle) >= 0.8
    assert accuracy(new, windows, truth) >= accuracy(parent, windows, truth) - 0.02
    assert same_files(undo(new, tmp_path / "back").path, parent.path)


@pytest.mark.parametrize(
    ("label", "user", "complaint"), [("low", False, "--user"), ("whistle", True, "leave out --user")]
)
def test_what_user_means_is_checked(parent: Bundle, tmp_path: Path, label: str, user: bool, complaint: str) -> None:
    with pytest.raises(BadModel, match=complaint):
        teach.teach(parent, label, examples(NEW_HZ), tmp_path / "child", user=user)


def test_examples_that_are_a_known_label_are_refused_or_do_no_harm(parent: Bundle, tmp_path: Path) -> None:
    windows, truth = sounds.labelled(np.random.default_rng(12), JUDGED)
    try:
        made = teach.teach(parent, "twin", examples(sounds.CENTRE_HZ["middle"]), tmp_path / "twin", user=False).bundle
    except BadModel as error:
        assert "would lose" in str(error)
    else:
        assert accuracy(made, windows, truth) >= accuracy(parent, windows, truth) - 0.05


def test_a_model_that_cannot_be_taught_says_why(parent: Bundle, tmp_path: Path) -> None:
    bare = tmp_path / "source"
    shutil.copytree(parent.path, bare)
    recipe = parent.manifest.model_dump(
        mode="json", exclude_none=True, exclude={"format", "files", "weight_bits", "granularity"}
    )
    (bare / statistics.FILE).unlink()
    (bare / "recipe.json").write_text(json.dumps(recipe))
    without = build.build(bare, tmp_path / "bare")
    with pytest.raises(BadModel, match="has no statistics"):
        teach.teach(without, "whistle", examples(NEW_HZ), tmp_path / "child", user=False)
    with pytest.raises(BadModel, match="is the parent itself"):
        teach.teach(parent, "whistle", examples(NEW_HZ), parent.path, user=False)
    with pytest.raises(BadModel, match="was not taught anything"):
        undo(parent, tmp_path / "before")


@pytest.mark.parametrize("label", ["", "  ", "two\nlines", "x" * 201])
def test_a_label_that_no_bundle_can_have_is_refused_first(parent: Bundle, tmp_path: Path, label: str) -> None:
    with pytest.raises(BadModel, match=r"the label|labels\.3: ") as refused:
        teach.teach(parent, label, examples(NEW_HZ), tmp_path / "child", user=False)
    assert str(tmp_path) not in str(refused.value)


def test_silence_teaches_nothing(parent: Bundle, tmp_path: Path) -> None:
    silent = sounds.window(np.zeros(sounds.RATE_HZ, np.int16))
    with pytest.raises(BadModel, match="example 6 of 6 is silence"):
        teach.teach(parent, "whistle", [*examples(NEW_HZ), silent], tmp_path / "child", user=False)


def test_more_than_undo_reads_back_is_not_taught(
    parent: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teach, "MOST_KEPT_BYTES", 1000)
    with pytest.raises(BadModel, match="at most 1000 can be kept"):
        taught(parent, tmp_path / "child")


def test_of_many_examples_several_are_left_out_at_once(parent: Bundle, tmp_path: Path) -> None:
    many = examples(NEW_HZ) + examples(NEW_HZ, 2) + examples(NEW_HZ, 3)
    lesson = teach.teach(parent, "whistle", many, tmp_path / "child", user=False).lesson
    assert lesson.found is not None and lesson.found > 0.8


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [("payload.so", "not in the manifest"), ("../escaped", "plain file name"), ("/tmp/escaped", "plain file name")],
)
def test_a_kept_parent_brings_no_other_files(child: Bundle, tmp_path: Path, extra: str, complaint: str) -> None:
    kept = read_npz(child.artefact(PARENT), "here")
    others = {name: child.artefact(name) for name in child.manifest.files}
    others[PARENT] = write_npz({**kept, extra: np.ones(9, np.uint8)})
    document = child.manifest.model_dump(mode="json", exclude_none=True, exclude={"format", "files"})
    evil = write(tmp_path / "evil", document, others)
    with pytest.raises(BadModel, match=complaint):
        undo(evil, tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["evil"]


def test_distances_without_echo_stay_so(parent: Bundle) -> None:
    rng = np.random.default_rng(1)
    data = np.where(rng.random((40, 24)) < 0.3, 0, rng.integers(200, 3000, (40, 24))).astype(np.int32)
    data[:, 0], data[:, 1] = 0, 1500
    made = copies(parent, Window(0, 10**8, data, ring_info(24)), rng)
    assert len(made) == 1 + COPIES
    for copy in made[1:]:
        assert copy.data.shape == data.shape and (copy.data != data).any()
        assert not copy.data[:, 0].any() and (copy.data[:, 1] > 1000).all()
        assert (copy.data[copy.data > 0] > 50).all(), "an echo out of nothing, right in front"


def test_a_damaged_parent_is_not_restored(child: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "child"
    shutil.copytree(child.path, folder)
    content = bytearray((folder / PARENT).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / PARENT).write_bytes(content)
    with pytest.raises(BadModel, match="SHA-256"):
        undo(load(folder), tmp_path / "again")
    document = json.loads((folder / MANIFEST).read_bytes())
    assert document["parent"]["id"] == "sounds@1.0.0"


# The shipped model, a spoken word that it has never heard, and voices that are not in the examples.

EXAMPLE_VOICES = ("en-us", "en-gb+f2", "en-us+m3", "en-029+f4", "en-gb-x-rp+m7")
OTHER_VOICES = tuple(f"{accent}+{variant}" for accent in ("en-us", "en-gb", "en-gb-scotland", "en-us-nyc")
                     for variant in ("m1", "m5", "f1", "f3", "f5", "Andy", "belinda", "quincy"))  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The shipped spoken-digits, and test windows with their labels."""
    folder = datasets.find("audio_fsdd")
    if folder is None:
        pytest.skip("needs the recordings audio_fsdd (AXOND_DATA)")
    shipped = open_bundle("spoken-digits", [])
    judged = encoded(shipped, datasets.load(folder, "test"))
    if statistics.read(shipped) is not None:
        return shipped, *judged
    source = tmp_path_factory.mktemp("digits") / "source"
    shutil.copytree(shipped.path.parent / "_build" / "spoken-digits", source)
    seen, labels = encoded(shipped, datasets.load(folder, "train")[::3])
    found = statistics.collect(shipped.network, seen, labels, 10, shipped.manifest.temperature)
    (source / statistics.FILE).write_bytes(write_npz(found))
    return build.build(source, source.parent / "spoken-digits"), *judged


def encoded(bundle: Bundle, recordings: list[Recording]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    encoder = make_encoder(bundle, recordings[0].info)
    cut = [(live_window(one, bundle.windows), int(one.label)) for one in recordings]
    heard = [(one, label) for one, label in cut if one is not None]
    made = np.zeros((len(heard), *encoder.shape), np.uint8)
    for (one, _), raster in zip(heard, made, strict=True):
        encoder.encode(one, raster)
    return made, np.array([label for _, label in heard])


def spoken(word: str, voice: str, seed: int, label: str) -> Recording:
    rng = np.random.default_rng(seed)
    speed_wpm, pitch = int(rng.integers(120, 200)), int(rng.integers(25, 75))
    data = speech.speak(word, voice, 8000, speed_wpm=speed_wpm, pitch=pitch)[:, None]
    return Recording(voice, label, "", data, audio_info(8000))


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
@pytest.mark.parametrize("word", ["hello", "computer"])
def test_an_eleventh_word_from_five_voices(
    digits: tuple[Bundle, npt.NDArray[np.uint8], npt.NDArray[np.int64]], word: str, tmp_path: Path
) -> None:
    bundle, rasters, truth = digits
    heard = [live_window(spoken(word, voice, i, "10"), bundle.windows) for i, voice in enumerate(EXAMPLE_VOICES)]
    made = teach.teach(bundle, word, [one for one in heard if one is not None], tmp_path / "child", user=False)
    unseen, _ = encoded(bundle, [spoken(word, voice, 50 + i, "10") for i, voice in enumerate(OTHER_VOICES)])
    found = (batch.run(made.bundle.network, unseen)[0].argmax(axis=1) == 10).sum() / len(OTHER_VOICES)
    before, after = (
        (batch.run(one.network, rasters)[0].argmax(axis=1) == truth).mean() for one in (bundle, made.bundle)
    )
    assert found >= 0.8
    assert after >= before - 0.02
    assert same_files(undo(made.bundle, tmp_path / "again").path, bundle.path)
