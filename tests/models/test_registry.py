"""Third parties' backends and encoders come through entry points, and a broken one is one sentence."""

from pathlib import Path

import numpy as np
import pytest

from drivers.packet import SensorInfo
from models.backends.reference import ReferenceBackend
from models.base import BackendUnavailable, BadModel
from models.registry import backends, encoders, make_backend, make_encoder
from tests.models import networks, thirdparty


def install(folder: Path, group: str, target: str) -> None:
    thirdparty.install(folder, {group: {"vendor": target}})
    (folder / "broken_vendor.py").write_text("VALUE = 1 / 0\n")


def test_a_third_partys_backend_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "axond.backends", "models.backends.reference:BACKEND")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert backends()[-1] == "vendor"
    assert isinstance(make_backend("vendor"), ReferenceBackend)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("no_such_module:X", r"cannot be imported: ModuleNotFoundError: .*; repair or remove package thirdparty"),
        ("broken_vendor:X", r"cannot be imported: ZeroDivisionError: .*; repair or remove package thirdparty"),
        ("pathlib:Path", r"expected a subclass of models\.base\.Backend"),
    ],
)
def test_a_broken_backend_is_one_sentence_and_the_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, sentence: str
) -> None:
    install(tmp_path, "axond.backends", target)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackendUnavailable, match=f"backend 'vendor' .*{sentence}"):
        make_backend("vendor")
    assert isinstance(make_backend("reference"), ReferenceBackend)


def test_a_broken_encoder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "axond.encoders", "broken_vendor:X")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "vendor" in encoders()
    made = networks.write_bundle(
        tmp_path / "made", networks.random_network(np.random.default_rng(1)), encoder={"kind": "vendor"}
    )
    wanted = made.manifest.input
    count = len(wanted.channels)
    info = SensorInfo(wanted.family, tuple(wanted.channels), ("1",) * count, (1.0,) * count, wanted.rate_hz)
    with pytest.raises(BadModel, match=r"encoder 'vendor' .* cannot be imported: ZeroDivisionError"):
        make_encoder(made, info)
