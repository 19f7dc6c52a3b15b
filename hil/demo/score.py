"""Compare results with the truth of the stimuli, by capture time."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from hil.demo.stimuli import Span, Stimulus


@dataclass(frozen=True, slots=True)
class Result:
    """One result as it arrived at the hub (or lies in the outbox), in CLOCK_MONOTONIC time."""

    stream: str
    start_ns: int
    stop_ns: int
    label: str
    score: float
    quality: float | None = None
    """Of a pipeline that fuses sensors."""


@dataclass(frozen=True, slots=True)
class Score:
    """``correct`` of ``scored``; what could not be judged is apart."""

    results: int
    scored: int
    correct: int
    ambiguous: int
    """Motion windows that lie across two activities."""
    missed: int = 0
    """Words that were played in full and gave no result."""
    spurious: int = 0
    """Results without a word."""

    @property
    def accuracy(self) -> float | None:
        return round(self.correct / self.scored, 4) if self.scored else None


class Truth:
    """A looped stimulus on the time line: sample 0 was captured at ``start_ns``."""

    def __init__(self, stimulus: Stimulus, start_ns: int) -> None:
        self._stimulus = stimulus
        self._start_ns = start_ns
        self._starts = [span.start for span in stimulus.truth]

    def spans(self, start_ns: int, stop_ns: int) -> list[tuple[int, Span, int]]:
        """What was there between two times: (number since start, span, overlap in samples), in order."""
        rate_hz, length = self._stimulus.rate_hz, len(self._stimulus.data)
        first = round((start_ns - self._start_ns) * rate_hz / 1e9)
        last = round((stop_ns - self._start_ns) * rate_hz / 1e9)
        found = []
        for lap in range(max(0, first // length), last // length + 1):
            low, high = first - lap * length, last - lap * length
            for i in range(max(0, bisect_right(self._starts, low) - 1), len(self._starts)):
                span = self._stimulus.truth[i]
                if span.start >= high:
                    break
                overlap = min(high, span.stop) - max(low, span.start)
                if overlap > 0:
                    found.append((lap * len(self._starts) + i, span, overlap))
        return found

    def label(self, result: Result) -> str | None:
        """The true label at a result: of the span with the largest part in its window; None if there is none."""
        spans = self.spans(result.start_ns, result.stop_ns)
        return max(spans, key=lambda item: item[2])[1].label if spans else None


def score_motion(results: Iterable[Result], truth: Truth) -> Score:
    """A window counts if everything in it has one label."""
    total = scored = correct = 0
    for result in results:
        total += 1
        labels = {span.label for _, span, _ in truth.spans(result.start_ns, result.stop_ns)}
        if len(labels) == 1:
            scored += 1
            correct += result.label in labels
    return Score(total, scored, correct, total - scored)


def score_words(results: Iterable[Result], truth: Truth, since_ns: int, until_ns: int) -> Score:
    """Each word counts once: right if the first result over it has its label. Missed words count as wrong."""
    total = correct = spurious = 0
    heard: dict[int, bool] = {}
    for result in sorted(results, key=lambda r: r.start_ns):
        total += 1
        spans = truth.spans(result.start_ns, result.stop_ns)
        if not spans:
            spurious += 1
            continue
        number, span, _ = max(spans, key=lambda item: item[2])
        heard.setdefault(number, result.label == span.label)
    whole_ns = 1_200_000_000  # a window's length and its way: later words may have no result yet
    played = {number for number, _, _ in truth.spans(since_ns, until_ns - whole_ns)}
    missed = len(played - heard.keys())
    correct = sum(heard.values())
    return Score(total, len(heard) + missed, correct, 0, missed, spurious)
