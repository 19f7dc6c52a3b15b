"""The page about a bundle: its numbers are right, and it is a page."""

from html.parser import HTMLParser

import numpy as np
import pytest

from models.evaluate import Coded, Decisions
from models.registry import ZOO, open_bundle
from models.report import calibration, class_scores, page
from models.report_drawing import picture

VOID = {"meta", "br"}


class Balance(HTMLParser):
    """Raises when a tag closes that is not the last one opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise ValueError(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def decisions(truth: list[int], decided: list[int], top: list[float]) -> Decisions:
    scores = np.zeros((len(truth), 2))
    for row, (i, score) in enumerate(zip(decided, top, strict=True)):
        scores[row, i], scores[row, 1 - i] = score, 1 - score
    said = np.array(decided)
    return Decisions(np.array(truth), said, said, scores, 1.0)


def test_scores_of_classes() -> None:
    confusion = np.array([[3, 1], [2, 4]])
    first, second = class_scores(["a", "b"], confusion, np.array([0] * 5 + [1] * 6))
    assert (first.windows, first.precision, first.recall) == (5, 3 / 5, 3 / 5), "one window of a did not begin"
    assert (second.precision, second.recall) == (4 / 5, 4 / 6)
    assert first.f1 == pytest.approx(0.6)


def test_calibration_is_the_distance_from_the_line() -> None:
    bins, error = calibration(decisions([0, 0, 1, 1], [0, 1, 1, 1], [0.75, 0.75, 0.95, 0.95]))
    assert [one.windows for one in bins] == [0, 0, 0, 0, 0, 0, 0, 2, 0, 2]
    assert (bins[7].score, bins[7].right) == (0.75, 0.5)
    assert error == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)


def test_a_picture_is_upright_or_lies() -> None:
    wide = np.array([[0, 0, 1], [0.5, 0, 0]])
    drawn = picture(wide, lying=False)
    assert 'viewBox="0 -0.5 3 2"' in drawn
    assert '<path d="M2 0h1" stroke="#235" stroke-opacity="1"' in drawn
    assert '<path d="M0 1h1" stroke="#235" stroke-opacity="0.5"' in drawn
    tall = np.zeros((5, 2))
    tall[3, 0] = 0.2
    assert '<path d="M3 1h1" stroke="#235" stroke-opacity="1"' in picture(tall, lying=True), (
        "the third row, its lowest column"
    )
    assert "h1" not in picture(np.zeros((2, 2)), lying=False)


@pytest.mark.skipif(not (ZOO / "activity").is_dir(), reason="the shipped models are not built")
def test_the_page_is_whole_and_says_the_numbers() -> None:
    bundle = open_bundle("activity", [])
    labels = bundle.manifest.labels
    rasters = bundle.golden.rasters
    truth = np.arange(len(rasters)) % len(labels)
    decided = truth.copy()
    decided[0] = (truth[0] + 1) % len(labels)
    scores = np.full((len(rasters), len(labels)), 0.01)
    scores[np.arange(len(rasters)), decided] = 0.9
    coded = Coded(rasters, [labels[i] for i in truth], ["<b>p1</b>"] * len(rasters), np.ones(len(rasters), bool), 1.0)
    said = Decisions(truth, decided, decided, scores, 1.0)
    text = page(bundle, (coded, said), "made & up", {"onnx": 12.5, "lava": "is <not> here"})
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    assert f"{len(rasters) - 1} of {len(rasters)}" in balance.cells
    assert "12.5" in balance.cells and "is <not> here" in balance.cells and "<b>p1</b>" in balance.cells
    assert text.count("<svg") == 2 + 2 * (3 + 1), (
        "two of calibration; three right and one wrong window, two layers each"
    )
    assert page(bundle, None, "", {}).count("<svg") == 0


def test_an_image_is_drawn_in_its_plane() -> None:
    bundle = open_bundle("event-digits", [])
    rasters, labels = bundle.golden.rasters[:1], bundle.manifest.labels
    said = Decisions(np.zeros(1, int), np.zeros(1, int), np.zeros(1, int), np.full((1, len(labels)), 0.1), 1.0)
    text = page(bundle, (Coded(rasters, labels[:1], ["g"], np.ones(1, bool), 1.0), said), "made", {})
    assert "input, 34 x 34 places in 2 channels and" in text
