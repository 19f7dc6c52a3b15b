"""How long results take: from the last sample's capture until the result is durable, and where the time went."""

from bisect import bisect_left
from threading import Lock

import numpy as np
import numpy.typing as npt

KEPT = 2048
STAGES = ("sensor", "wait", "encode", "backend", "report")
"""Last sample captured -> packet arrived -> taken by the pipeline -> encoded -> inferred -> durable."""


BOUNDS_S = (
    *(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0),
)
"""Upper bounds of the buckets of a histogram: from a tiny network on a fast core to a flash that stalls."""
_BOUNDS_NS = tuple(round(bound * 1e9) for bound in BOUNDS_S)


class Histogram:
    """How often something took how long, since the start. One thread adds, anybody reads."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_NS) + 1)
        """Of each bucket alone; the last one is of what took longer than every bound."""
        self.sum_ns = 0

    def add(self, took_ns: int) -> None:
        self.counts[bisect_left(_BOUNDS_NS, took_ns)] += 1
        self.sum_ns += took_ns


class Latency:
    """The stages of the last results of one pipeline. The pipeline adds, the outbox completes, anybody reads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: dict[object, tuple[int, ...]] = {}
        self._stages_ns: npt.NDArray[np.int64] = np.zeros((KEPT, len(STAGES)), np.int64)
        self.count = 0
        self.whole = Histogram()
        """Of all results, from the last sample's capture until durable."""

    def inferred(self, t0_ns: int, times_ns: tuple[int, int, int, int, int]) -> None:
        """A reported result, by its window's first capture time, with the times: last sample captured, packet arrived,
        taken, encoded, inferred (CLOCK_MONOTONIC)."""
        with self._lock:
            if len(self._open) >= KEPT:
                self._open.pop(next(iter(self._open)))
            self._open[t0_ns] = times_ns

    def durable(self, t0_ns: object, now_ns: int) -> None:
        """The result of the window that began at ``t0_ns`` is committed."""
        with self._lock:
            times = self._open.pop(t0_ns, None)
            if times is not None:
                self._stages_ns[self.count % KEPT] = np.diff((*times, now_ns))
                self.count += 1
                self.whole.add(now_ns - times[0])

    def stages_ns(self) -> npt.NDArray[np.int64]:
        """(results, stages): the last results, in no order of time."""
        with self._lock:
            kept: npt.NDArray[np.int64] = self._stages_ns[: min(self.count, KEPT)].copy()
            return kept

    def summary(self) -> dict[str, float]:
        """Milliseconds: p50 and p99 of the whole way, of all that is neither sensor nor backend, and of each stage."""
        stages = self.stages_ns() / 1e6
        if not len(stages):
            return {}
        ours = [i for i, name in enumerate(STAGES) if name not in ("sensor", "backend")]
        spans = {"": stages.sum(axis=1), "overhead_": stages[:, ours].sum(axis=1)}
        spans |= {f"{name}_": stages[:, i] for i, name in enumerate(STAGES)}
        return {
            f"{name}p{percent}_ms": round(float(np.percentile(values, percent)), 3)
            for name, values in spans.items()
            for percent in (50, 99)
        }
