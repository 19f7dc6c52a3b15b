"""What the demo's event camera sees: the digit that is being said, recorded (N-MNIST) or made."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.packet import EVENT
from hil.demo.stimuli import Stimulus
from models.datasets.load import find, load
from models.datasets.nmnist import SIDE

NS_PER_US = 1000
SIGHT_US = 300_000
"""Three saccades, as N-MNIST's: the camera looks to three corners of a triangle and back."""
FRAMES = 120
REACH_PX = 3.0
EVENTS_PER_EDGE = 6
"""A pixel that an edge passes sends several: its logarithm of brightness changes by more than one threshold."""
NOISE_EVENTS = 400
SEGMENTS = {
    "a": (0.0, 0.0, 1.0, 0.0), "b": (1.0, 0.0, 1.0, 0.5), "c": (1.0, 0.5, 1.0, 1.0), "d": (0.0, 1.0, 1.0, 1.0),
    "e": (0.0, 0.5, 0.0, 1.0), "f": (0.0, 0.0, 0.0, 0.5), "g": (0.0, 0.5, 1.0, 0.5),
}  # fmt: skip
"""The strokes of a seven-segment display, from and to, x to the right and y down."""
STROKES = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgecd", "abc", "abcdefg", "abcfgd")
WIDTH_PX, HEIGHT_PX, STROKE_PX = 9.0, 16.0, 1.6

Events = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Sight:
    """Events of a loop that is as long as the words', and where they are from."""

    source: str
    """For people: ``recordings (...)`` or what made them."""
    t_us: npt.NDArray[np.int64]
    """Ascending; the last is the loop's end."""
    x: npt.NDArray[np.uint8]
    y: npt.NDArray[np.uint8]
    on: npt.NDArray[np.uint8]


def shown(words: Stimulus, seed: int) -> Sight:
    """Each of the spoken digits, shown from the moment on at which the word begins."""
    rng = np.random.default_rng(seed)
    folder = find("event_nmnist")
    by_label: dict[str, list[Events]] = {str(digit): [] for digit in range(10)}
    if folder:
        for recording in load(folder, "test"):
            by_label[recording.label].append(recording.data)
        source = f"recordings ({folder}, split test)"
    else:
        source = "made: digits of seven strokes, seen by a camera that moves"
    parts = []
    for span in words.truth:
        known = by_label[span.label]
        events = known[rng.integers(len(known))].copy() if known else made_digit(int(span.label), rng)
        events["t_ns"] += round(span.start * 1e9 / words.rate_hz) - int(events["t_ns"][0])
        parts.append(events)
    end = np.zeros(1, EVENT)
    end["t_ns"] = round(len(words.data) * 1e9 / words.rate_hz) - NS_PER_US
    events = np.concatenate([*parts, end])
    events = events[np.argsort(events["t_ns"], kind="stable")]
    x, y, on = (events[name].astype(np.uint8) for name in ("x", "y", "on"))
    return Sight(source, events["t_ns"] // NS_PER_US, x, y, on)


def made_digit(digit: int, rng: np.random.Generator) -> Events:
    """EVENT[n] of a camera of ``SIDE`` x ``SIDE`` pixels: its edges make events while the camera moves."""
    phase = np.linspace(0, 3, FRAMES + 1)
    corners = REACH_PX * np.array([(0.0, 0.0), (0.5, 1.0), (1.0, 0.0), (0.0, 0.0)])
    center = (SIDE - 1 - REACH_PX) / 2 + rng.normal(0, 0.5, 2)
    at = np.stack([np.interp(phase, range(4), corners[:, axis]) + center[axis] for axis in (0, 1)], axis=1)
    grid = np.arange(SIDE, dtype=np.float64)
    x, y = grid[None, None, :] - at[:, 0, None, None], grid[None, :, None] - at[:, 1, None, None]
    bright = np.zeros((FRAMES + 1, SIDE, SIDE), np.bool_)
    for name in STROKES[digit]:
        x0, y0, x1, y1 = SEGMENTS[name]
        near_x = np.clip(x, (x0 - 0.5) * WIDTH_PX, (x1 - 0.5) * WIDTH_PX)
        near_y = np.clip(y, (y0 - 0.5) * HEIGHT_PX, (y1 - 0.5) * HEIGHT_PX)
        bright |= np.hypot(x - near_x, y - near_y) < STROKE_PX
    frame, row, column = np.repeat(np.nonzero(bright[1:] != bright[:-1]), EVENTS_PER_EDGE, axis=1)
    count = len(frame)
    events = np.zeros(count + NOISE_EVENTS, EVENT)
    frame_ns = SIGHT_US * NS_PER_US // FRAMES
    events["t_ns"][:count] = frame * frame_ns + rng.integers(0, frame_ns, count)
    events["x"][:count], events["y"][:count] = column, row
    events["on"][:count] = bright[1:][frame, row, column]
    events["t_ns"][count:] = rng.integers(0, SIGHT_US * NS_PER_US, NOISE_EVENTS)
    for name, most in (("x", SIDE), ("y", SIDE), ("on", 2)):
        events[name][count:] = rng.integers(0, most, NOISE_EVENTS)
    return events[np.argsort(events["t_ns"], kind="stable")]
