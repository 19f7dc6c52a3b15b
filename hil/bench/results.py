"""Results as a pipeline makes them, for benches that need many of them quickly."""

import numpy as np

from agent.wire import Row

LABELS = ("quiet", "yes", "no", "stop", "go")
HOP_NS = 5_000_000
"""200 results a second."""


def made(count: int, begin_ns: int, seed: int = 0) -> list[Row]:
    """``count`` results from ``begin_ns`` on (CLOCK_MONOTONIC): labels that last a while, scores with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(LABELS), count // 20 + 1).repeat(20)[:count]
    scores = np.round(rng.uniform(0.4, 1.0, count), 4).tolist()
    spikes = rng.poisson(140, count).tolist()
    jitter_ns = rng.normal(0, 20_000, count).astype(np.int64).tolist()
    return [
        {
            "t_ns": begin_ns + i * HOP_NS + jitter_ns[i],
            "dur_us": 1_000_000,
            "label": LABELS[labels[i]],
            "score": scores[i],
            "lost": 0,
            "spikes": spikes[i],
            "model": "spoken-digits@1.2.0",
            "backend": "onnx",
        }
        for i in range(count)
    ]
