"""What a model saw in training: collected, packed, read back, and refused when it is something else."""

from pathlib import Path

import numpy as np
import pytest

from models import batch, statistics
from models.base import BadModel
from models.bundle import Bundle
from models.network import write_npz
from tests.models import sounds


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return sounds.make(tmp_path_factory.mktemp("sounds"))


def of(made: Bundle) -> statistics.Statistics:
    known = statistics.read(made)
    assert known is not None
    return known


def test_potentials_are_linear_in_phi(made: Bundle) -> None:
    coded = sounds.rasters(made, sounds.labelled(np.random.default_rng(1), 5)[0])
    seen = statistics.look(made.network, coded)
    last = made.network.layers[-1]
    linear = statistics.unit(coded.shape[1], last) * (seen.phi @ last.w_in.T.astype(np.float64))
    assert (seen.potentials == batch.run(made.network, coded)[0]).all()
    assert np.abs(linear - seen.potentials).max() < 1e-3 * np.abs(seen.potentials).max()
    assert (seen.phi >= 0).all() and (seen.phi < 1 + 1e-6).all() and seen.phi.max() > 0.1


def test_statistics_are_those_of_the_windows(made: Bundle) -> None:
    windows, truth = sounds.labelled(np.random.default_rng(7), 80)
    seen = statistics.look(made.network, sounds.rasters(made, windows))
    known = of(made)
    assert (known.counts == 80).all()
    for c in range(3):
        assert np.allclose(known.means[c], seen.phi[truth == c].mean(axis=0), atol=1e-6)
    residuals = seen.phi - known.means[truth]
    lifted = known.covariance() - residuals.T @ residuals / len(residuals)
    assert np.allclose(lifted, np.diag(np.diag(lifted)), atol=1e-7), "only the diagonal is shrunk"
    score = statistics.confidence(seen.potentials, made.manifest.temperature)
    mine = known.quantiles[1, statistics.SIGNALS.index("confidence")]
    assert np.allclose(mine, np.quantile(score[truth == 1], statistics.QUANTILES), atol=1e-6)


def test_distance_is_that_of_mahalanobis(made: Bundle) -> None:
    known = of(made)
    phi = np.random.default_rng(2).random((7, known.means.shape[1]))
    inverse = np.linalg.inv(known.covariance())
    away = phi[:, None] - known.means[None].astype(np.float64)
    direct = np.sqrt(np.einsum("ncj,jk,nck->nc", away, inverse, away).min(axis=1) / phi.shape[1])
    assert np.allclose(statistics.Distance(known).of(phi), direct, rtol=1e-5)


def test_the_same_statistics_give_the_same_bytes(made: Bundle) -> None:
    content = made.artefact(statistics.FILE)
    assert statistics.load(content, made.network, "here").pack() == content


def test_a_bundle_may_have_none(made: Bundle, tmp_path: Path) -> None:
    from models.build import assemble
    from models.calibrate import Quantized

    recipe = made.manifest.model_dump(
        mode="json", exclude_none=True, exclude={"format", "files", "weight_bits", "granularity"}
    )
    quantized = Quantized(made.network, 8, "layer", (), (), 0.0)
    bare = assemble(tmp_path / "bare", recipe, made.artefact("network.nir"), b"# bare", quantized)
    assert statistics.read(bare) is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"means": np.zeros((3, 5), np.float32)}, "means"),
        ({"diagonal": np.full(sounds.HIDDEN, np.nan, np.float32)}, "cannot be"),
        ({"diagonal": np.zeros(sounds.HIDDEN, np.float32)}, "cannot be"),
        ({"diagonal": np.full(sounds.HIDDEN, 1e-40, np.float32)}, "cannot be"),
        ({"counts": np.zeros(3, np.int64)}, "of no windows"),
        ({"counts": np.full(3, (1 << 63) - 1)}, "cannot be"),
        ({"means": np.full((3, sounds.HIDDEN), 1e30, np.float32)}, "cannot be"),
        ({"factors": np.full((sounds.HIDDEN, 64), 1e30, np.float32)}, "cannot be"),
        ({"factors": np.zeros((sounds.HIDDEN, 4000), np.float32)}, "at most 64 are kept"),
        ({"quantiles": np.zeros((3, 4, 7), np.float64)}, "quantiles"),
        ({"factors": None}, "factors"),
    ],
)
def test_what_is_no_statistics_of_this_network_is_refused(
    made: Bundle, change: dict[str, np.ndarray | None], complaint: str
) -> None:
    arrays = {**of(made).arrays(), **change}
    content = write_npz({name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(BadModel, match=complaint):
        statistics.load(content, made.network, "here")


def test_labels_and_windows_must_belong_together(made: Bundle) -> None:
    coded = np.zeros((4, 15, 120), np.uint8)
    with pytest.raises(BadModel, match="one label for each window"):
        statistics.collect(made.network, coded, np.zeros(3, np.int64), 3, 1.0)
