"""The capability table: what the backends say, and what the README says of them."""

from pathlib import Path

import pytest

from models.capability import markdown, reasons, table, targets
from models.contract_networks import plain_network, random_network
from models.network import Network
from models.registry import AUTO_ORDER
from tests.models import thirdparty

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_has_this_table() -> None:
    text = README.read_text(encoding="utf-8")
    begin, end = "<!-- capabilities -->\n", "<!-- /capabilities -->"
    assert text[text.index(begin) + len(begin) : text.index(end)] == markdown()


def test_every_no_has_a_reason_on_one_line() -> None:
    found = list(reasons())
    assert len(found) == sum(row.count("no") for row in table())
    assert all(reason.isprintable() for _, _, reason in found)


def test_the_plain_network_runs_everywhere_and_a_rich_one_not(rich: Network) -> None:
    assert targets(plain_network()) == dict.fromkeys(AUTO_ORDER)
    answers = targets(rich)
    assert answers["lava"] is not None
    assert {kind for kind, reason in answers.items() if reason is None} >= {"onnx", "tflite", "reference"}


def test_third_parties_are_asked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rich: Network) -> None:
    thirdparty.install(tmp_path, {"axond.backends": {"mychip": "mychip:BACKEND", "gone": "no_such_module:X"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    answers = targets(rich)
    assert answers["mychip"] == "layer 'l0' has recurrent synapses; the chip has none"
    assert "cannot be imported: ModuleNotFoundError" in str(answers["gone"])
    assert targets(plain_network())["mychip"] is None


@pytest.fixture
def rich() -> Network:
    import numpy as np

    return random_network(np.random.default_rng(10), bias=True)
