"""Cut a sensor's packets into windows: by time (motion) or at energy onsets (speech)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from drivers.packet import Packet, SensorInfo
from models.base import Window

ONSET_FRAME_MS = 10.0
"""Energy is judged in frames of this length."""
FLOOR_RISE_PER_FRAME = 1.01
"""The noise floor follows louder surroundings by 1 % a frame (a factor 2.7 in a second) and quieter ones at once."""
FLOOR_MIN_FS = 2e-4
"""No room is quieter than this fraction of full scale: digital silence must not make every click an onset."""
FLOOR_START_FRAMES = 5
MAX_FILL_FRACTION = 0.25
"""A gap longer than this part of a window starts the window anew; a shorter one is filled by holding the last value."""


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """How a bundle wants its input cut. ``samples`` is the window's length; ``hop`` applies to mode ``time``.

    Mode ``onset`` starts a window ``pre`` samples before the first of ``frames`` consecutive energy frames that exceed
    ``ratio`` times the noise floor (amplitudes), and looks for the next onset only after the window's end.
    """

    mode: Literal["time", "onset"]
    samples: int
    hop: int = 0
    pre: int = 0
    ratio: float = 4.0
    frames: int = 2
