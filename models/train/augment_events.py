"""Other hands, cameras and moments from one recording of events. Pure given the random generator."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.packet import EVENT

Events = npt.NDArray[Any]
_GRID = 5
"""Points of the elastic field, across and down."""
_DITHER_PX = 0.3
"""Events are moved by up to so much at random, so that an enlarged image has no holes."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How far ``distort`` may go, each way."""

    shift_px: float = 2.5
    turn_deg: float = 10.0
    scale: float = 0.12
    shear: float = 0.12
    elastic_px: float = 1.0
    """Standard deviation at each point of the field."""
    pace: float = 0.1
    delay_ns: float = 5e6
    drop: float = 0.3
    """At most this part of the events is missing."""
    noise_events: int = 200
    """At most so many are added anywhere."""


def distort(events: Events, width: int, height: int, rng: np.random.Generator, spread: Spread) -> Events:
    """The same thing written, seen and moved otherwise: EVENT[m] in the order of time, inside width x height."""
    kept = events.take(np.flatnonzero(rng.random(len(events), np.float32) >= rng.uniform(0, spread.drop)))
    begin_ns, end_ns = (int(events["t_ns"][i]) for i in (0, -1)) if len(events) else (0, 0)
    x, y = _moved(kept, width, height, rng, spread)
    pace, delay_ns = np.exp(rng.uniform(-spread.pace, spread.pace)), rng.uniform(-1, 1) * spread.delay_ns
    noise = int(rng.integers(0, spread.noise_events + 1))
    t_ns = np.concatenate([(kept["t_ns"] - begin_ns) * pace + delay_ns, rng.uniform(0, end_ns - begin_ns, noise)])
    x = np.concatenate([x, rng.integers(0, width, noise)])
    y = np.concatenate([y, rng.integers(0, height, noise)])
    on = np.concatenate([kept["on"], rng.integers(0, 2, noise, np.uint8)])
    inside = np.flatnonzero((x >= 0) & (x < width) & (y >= 0) & (y < height))
    order = inside[np.argsort(t_ns[inside], kind="stable")]
    out = np.zeros(len(order), EVENT)
    out["t_ns"] = begin_ns + np.rint(t_ns[order]).astype(np.int64)
    out["x"], out["y"], out["on"] = x[order], y[order], on[order]
    return out


def _moved(
    events: Events, width: int, height: int, rng: np.random.Generator, spread: Spread
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pixels after a random turn, scale, shear, shift and elastic field (Simard, Steinkraus, Platt 2003)."""
    angle = np.deg2rad(rng.uniform(-spread.turn_deg, spread.turn_deg))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1.0, rng.uniform(-spread.shear, spread.shear)], [0.0, 1.0]])
    scale = np.diag(np.exp(rng.uniform(-spread.scale, spread.scale, 2)))
    to_x, to_y = (turn @ shear @ scale).tolist()
    x, y = events["x"].astype(np.float32), events["y"].astype(np.float32)
    # Between four points of the field, each with its part.
    across, down = x * ((_GRID - 1) / max(1, width - 1)), y * ((_GRID - 1) / max(1, height - 1))
    column, row = (np.minimum(at.astype(np.int32), _GRID - 2) for at in (across, down))
    right, below = across - column, down - row
    corner = row * _GRID + column
    parts = [(0, (1 - right) * (1 - below)), (1, right * (1 - below)), (_GRID, (1 - right) * below)]
    parts.append((_GRID + 1, right * below))
    x -= (width - 1) / 2
    y -= (height - 1) / 2
    moved = []
    for (from_x, from_y), middle in ((to_x, (width - 1) / 2), (to_y, (height - 1) / 2)):
        field = rng.normal(0, spread.elastic_px, _GRID * _GRID).astype(np.float32)
        place = from_x * x + from_y * y + (middle + rng.uniform(-spread.shift_px, spread.shift_px))
        for offset, part in parts:
            place += field[corner + offset] * part
        place += (rng.random(len(x), np.float32) - 0.5) * (2 * _DITHER_PX)
        moved.append(np.rint(place).astype(np.int64))
    return moved[0], moved[1]
