"""Training words in a stream: the readout of a live stream, a loss to learn from, scenes that say what is where."""

import shutil

import numpy as np
import pytest

from models.backends.reference import ReferenceBackend

pytest.importorskip("torch", reason="torch (extra 'train') is not installed")
import torch  # behind the skip

from models.train import export, loop
from models.train.lif import LayerSpec
from models.train.spotting import FORGIVEN, StreamSnn, objective
from models.train.wake_scenes import RATE_HZ, SCENE, Pools, Spoken, cut_out, scene, spoken

CLASSES, STEPS, FEATURES, READOUT = 3, 60, 12, 10


def made_net() -> StreamSnn:
    loop.start(0)
    hidden = LayerSpec(24, 2000, 3000, 1.0, recurrent=True)
    return StreamSnn(FEATURES, [hidden], LayerSpec(CLASSES, 2000, 3500, 1.0), READOUT, gain=1.5, dropout=0.0)


def items(rng: np.random.Generator, count: int) -> tuple[loop.Rasters, loop.Labels]:
    """In half of the scenes one of two words: its own features, one after the other, somewhere in sparse noise."""
    rasters = (rng.random((count, STEPS, FEATURES)) < 0.03).astype(np.uint8)
    rows = np.tile(np.array([CLASSES - 1, 0, 0, 0]), (count, 1))
    for i in np.flatnonzero(rng.random(count) < 0.6):
        word, begin = int(rng.integers(2)), int(rng.integers(12, 30))
        for step in range(10):
            feature = step if word == 0 else 9 - step
            rasters[i, begin + step, feature : feature + 2] = 1
        rows[i] = word, begin + 3, begin + 8, begin + 20
    return rasters, rows


def test_the_logits_are_what_a_stream_sums_up() -> None:
    net = made_net().eval()
    raster, _ = items(np.random.default_rng(1), 4)
    backend = ReferenceBackend()
    backend.load_network(export.integer_network(net))
    with torch.no_grad():
        logits = net(loop.to_steps(raster)).numpy()
    assert logits.shape == (STEPS, 4, CLASSES)
    for i in range(4):
        outputs = backend.infer(raster[i]).astype(np.float64)
        sums = np.array([outputs[max(0, t - READOUT + 1) : t + 1].sum(axis=0) for t in range(STEPS)])
        unit = float(net.out.scale()) * 128 * READOUT
        assert np.abs(outputs).max() > 0
        assert np.allclose(sums / unit, logits[:, i], atol=0.02 * np.abs(logits[:, i]).max())


def test_words_that_differ_only_in_their_order_are_learned() -> None:
    net, rng = made_net(), np.random.default_rng(2)
    losses = []
    loop.fit(
        net, lambda _: items(rng, 256), lambda x: x, epochs=16, batch=32, peak_rate=1e-2, weight_decay=0.0,
        averaged_epochs=1, report=lambda _epoch, loss, right: losses.append((loss, right)), objective=objective,
    )  # fmt: skip
    assert losses[-1][0] < 0.5 * losses[0][0]
    rasters, rows = items(np.random.default_rng(3), 200)
    net.eval()
    with torch.no_grad():
        _, right = objective(net, loop.to_steps(rasters), torch.from_numpy(rows))
        said = net(loop.to_steps(rasters)).argmax(2).numpy()
    assert right > 0.9
    quiet = rows[:, 0] == CLASSES - 1
    assert (said[:, quiet] == CLASSES - 1).mean() > 0.9


def test_nothing_is_asked_while_a_word_is_being_said_nor_just_after() -> None:
    rows = torch.tensor([[0, 20, 25, 30]])

    class Fixed(StreamSnn):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return answers

    net = Fixed(FEATURES, [], LayerSpec(CLASSES, 1, 1, 1.0), READOUT, gain=1.0, dropout=0.0)
    answers = torch.zeros(STEPS, 1, CLASSES)
    answers[..., -1] = 9.0
    answers[25:31] = torch.tensor([9.0, 0.0, 0.0])
    least, right = objective(net, torch.zeros(STEPS, 1, FEATURES), rows)
    assert right == 1
    answers[20:25] = torch.tensor([0.0, 9.0, 0.0])
    answers[31 : 31 + FORGIVEN] = torch.tensor([0.0, 9.0, 0.0])
    same, _ = objective(net, torch.zeros(STEPS, 1, FEATURES), rows)
    assert float(same) == pytest.approx(float(least))
    answers[19] = torch.tensor([0.0, 9.0, 0.0])
    worse, _ = objective(net, torch.zeros(STEPS, 1, FEATURES), rows)
    assert float(worse) > float(least) + 0.1


def test_the_word_of_a_clip_is_found_by_its_energy() -> None:
    rng = np.random.default_rng(4)
    clip = rng.normal(0, 20, 3 * RATE_HZ)
    clip[RATE_HZ : RATE_HZ * 7 // 4] += rng.normal(0, 3000, RATE_HZ * 3 // 4)
    clip[RATE_HZ // 4 : RATE_HZ // 4 + 300] += 8000
    word = cut_out(np.rint(clip).astype(np.int16))
    assert 0.75 <= len(word) / RATE_HZ <= 0.95
    assert (word**2).sum() > 0.99 * (clip[RATE_HZ : RATE_HZ * 7 // 4] ** 2).sum()
    assert len(cut_out(np.zeros(RATE_HZ, np.int16))) <= RATE_HZ


def test_scenes_have_their_word_where_they_say() -> None:
    rng = np.random.default_rng(5)
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE_HZ // 2) / RATE_HZ) * 8000
    hum = rng.normal(0, 100, RATE_HZ)
    pools = Pools(human=[(tone, 0)], made=[(tone, 1)], others=[rng.normal(0, 1000, 5000)], noises=[hum])
    kinds = []
    for _ in range(60):
        one = scene(pools, 3, rng)
        assert one.samples.shape == (SCENE,)
        assert one.samples.dtype == np.int16
        kinds.append(one.label)
        if one.label < 2:
            assert 0 < one.begin < one.first < one.last < SCENE
    assert set(kinds) == {0, 1, 2}
    assert 0.3 < np.mean(np.array(kinds) < 2) < 0.8


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_words_are_cut_out() -> None:
    made, others = spoken(["alexa"], Spoken(per_word=2, per_other=0, made_up=3), np.random.default_rng(6))
    assert [label for _, label in made] == [0, 0]
    assert len(others) == 3
    assert all(0.2 < len(wave) / RATE_HZ < 1.9 for wave in [*(wave for wave, _ in made), *others])
