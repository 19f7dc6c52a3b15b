"""Where something begins: a run of frames whose level is far above the floor, after quiet."""

import numpy as np
import numpy.typing as npt

FLOOR_RISE_DB = 0.1
"""The floor follows louder surroundings by this much a frame (10 dB in a second) and quieter ones at once."""
_STEPS_PER_DB = 1000
"""Levels are whole thousandths of a decibel, so that the floor does not depend on how samples fall into packets."""


def level_of(amplitude: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Level in whole steps of 1/1000 dB re an amplitude of 1."""
    steps: npt.NDArray[np.float64] = np.rint(20 * _STEPS_PER_DB * np.log10(np.maximum(amplitude, 1e-12)))
    return steps.astype(np.int64)


class Onsets:
    """Finds the frames at which a run of loud frames begins. All state is integer, so packet sizes do not matter."""

    def __init__(self, run: int, ratio: float, minimum: float) -> None:
        """``run`` frames above ``ratio`` times the floor; the floor is never below the amplitude ``minimum``."""
        self._run = run
        self._ratio_steps = level_of(np.array([ratio]))[0]
        self._minimum_steps = level_of(np.array([minimum]))[0]
        self._rise_steps = round(FLOOR_RISE_DB * _STEPS_PER_DB)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._floor_steps: int | None = None
        self.restart()

    def restart(self) -> None:
        """Frames are missing: keep the floor, and let nothing begin before a quiet frame was heard."""
        self._loud = np.zeros(self._run - 1, np.bool_)
        self._busy = True

    def scan(self, level: npt.NDArray[np.int64], made_up: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Indices, within these frames (one or more), of the first frame of each run that is now ``run`` frames long.

        An index may be negative: the run began in frames of an earlier call. A frame that is ``made_up`` is never loud
        and never lowers the floor.
        """
        level = np.maximum(level, self._minimum_steps)
        ramp = np.arange(1, len(level) + 1, dtype=np.int64) * self._rise_steps
        lowest = np.where(made_up, np.iinfo(np.int64).max // 2, level) - ramp
        if self._floor_steps is None:
            self._floor_steps = int(level[0])
        floor = np.minimum(np.minimum.accumulate(lowest), self._floor_steps) + ramp
        self._floor_steps = int(floor[-1])
        above = np.where(made_up, self._ratio_steps // 2 + 1, level - floor)  # made up: neither loud nor quiet
        loud = np.concatenate([self._loud, above > self._ratio_steps])
        run = np.lib.stride_tricks.sliding_window_view(loud, self._run).all(axis=1)
        decided = np.concatenate([[True], run | (above <= self._ratio_steps // 2)])
        busy = np.concatenate([[self._busy], run])[np.maximum.accumulate(np.where(decided, np.arange(len(decided)), 0))]
        self._loud = loud[len(level) :]
        self._busy = bool(busy[-1])
        return np.flatnonzero(run & ~busy[:-1]) + 1 - self._run
