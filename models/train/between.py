"""A word as somebody between two speakers would say it: more voices than there are recordings of.

Both are laid on one another in time (dynamic time warping, Sakoe and Chiba 1978), then mixed; how much of each there is
changes along the word and over its bands, and goes a little beyond either.
"""

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.float32]
MOST_APART = 30
"""Steps by which one of the two may be ahead."""
DIAGONAL_DB = 0.01
"""Of two ways of the same cost, the straight one."""
BEYOND = 0.25
TILT = 1.2
"""Standard deviation of how much the mixture changes along a window, and from its lowest to its highest band."""
PIVOT = 0.2
"""Of a window, where its change begins at 0: a word is at the beginning."""
DIAGONAL, FIRST, SECOND = range(3)


def between(first: Levels, second: Levels, range_db: float, rng: np.random.Generator) -> Levels:
    """(n, steps, bands) in dB, of words in ``first`` and the same words in ``second``.

    Both are taken relative to their loudest; what is below ``range_db`` of that (below 0) is silence.
    """
    count, steps, bands = first.shape
    first, second = (np.maximum(w - w.max(axis=(1, 2), keepdims=True), range_db) for w in (first, second))
    at_first, at_second, length = _paths(_distances(_compared(first), _compared(second)))
    way = np.arange(at_first.shape[1]) / np.maximum(length[:, None] - 1, 1)
    part = (
        rng.uniform(-0.1, 1.1, (count, 1, 1))
        + rng.normal(0, TILT, (count, 1, 1)) * (way[:, :, None] - PIVOT)
        + rng.normal(0, TILT, (count, 1, 1)) * (np.linspace(0, 1, bands) - 0.5)
    )
    part = np.clip(part, -BEYOND, 1 + BEYOND).astype(np.float32)
    word = np.arange(count)[:, None]
    mixed = (1 - part) * first[word, at_first] + part * second[word, at_second]
    pace = np.clip(part.mean(axis=2), 0, 1)
    time = np.maximum.accumulate((1 - pace) * at_first + pace * at_second, axis=1)
    # Of each step the first place of the way that is (nearly) at its time.
    place = (time[:, :, None] < np.arange(steps) - 0.25).sum(axis=1)
    out: Levels = mixed[word, np.minimum(place, length[:, None] - 1)]
    return out


def _compared(levels: Levels) -> Levels:
    """Without half of each band's mean, which is the speaker's rather than the word's."""
    out: Levels = levels - levels.mean(axis=1, keepdims=True) / 2
    return out


def _distances(first: Levels, second: Levels) -> Levels:
    """(steps of first, steps of second, n): of each two steps."""
    squares = (first**2).sum(axis=2)[:, :, None] + (second**2).sum(axis=2)[:, None]
    products = first @ second.transpose(0, 2, 1)
    out: Levels = np.sqrt(np.maximum(squares - 2 * products, 0)).transpose(1, 2, 0).copy()
    return out


def _paths(distance: Levels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The cheapest ways from both beginnings to both ends: (n, 2 steps) places in each, and how many of them count."""
    steps, _, count = distance.shape
    cost = np.full((steps + 1, steps + 1, count), np.inf, np.float32)
    cost[0, 0] = 0
    came = np.zeros((steps, steps, count), np.int8)
    for i in range(steps):
        for j in range(max(0, i - MOST_APART), min(steps, i + MOST_APART + 1)):
            straight, up, left = cost[i, j] - DIAGONAL_DB, cost[i, j + 1], cost[i + 1, j]
            least = np.minimum(np.minimum(straight, up), left)
            cost[i + 1, j + 1] = distance[i, j] + least
            came[i, j] = np.where(straight == least, DIAGONAL, np.where(up == least, FIRST, SECOND))
    word = np.arange(count)
    here, there = (np.full(count, steps - 1) for _ in range(2))
    ways = np.zeros((2, count, 2 * steps), np.int64)
    # From the end to the beginning, which is then repeated: what counts is at the end, and moved to the front.
    length = np.full(count, 2 * steps)
    for k in range(2 * steps - 1, -1, -1):
        ways[:, :, k] = here, there
        begun = (here == 0) & (there == 0)
        length = np.where(begun, np.minimum(length, 2 * steps - k), length)
        move = came[here, there, word]
        here, there = np.maximum(here - (move != SECOND), 0), np.maximum(there - (move != FIRST), 0)
    order = np.minimum(np.arange(2 * steps) + (2 * steps - length)[:, None], 2 * steps - 1)
    at_first, at_second = (np.take_along_axis(way, order, axis=1) for way in ways)
    return at_first, at_second, length
