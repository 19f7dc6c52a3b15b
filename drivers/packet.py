"""What a driver hands over: a batch of samples or events with its capture time and its losses."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

EVENT = np.dtype([("t_ns", "<i8"), ("x", "<u2"), ("y", "<u2"), ("on", "u1")])
"""One event of an event camera: capture time (CLOCK_MONOTONIC, ns), pixel, polarity (1 = brighter)."""


@dataclass(frozen=True, slots=True)
class Packet:
    """Tens to thousands of samples of one sensor, in its own integer type. Nobody writes to it after it is made."""

    sensor: str
    """Instance name from the configuration, for example ``mic0``."""
    seq: int
    """Counts packets of this sensor since open, from 0; a jump is a loss between driver and reader."""
    t0_ns: int
    """CLOCK_MONOTONIC time of the first sample, from the device's clock where it has one."""
    dt_ns: int
    """Sample period; 0 means that events carry their own time."""
    data: npt.NDArray[np.generic]
    """(n, channels) integer, or (n,) EVENT; read-only."""
    lost: int = 0
    """Samples known to be missing just before this packet."""

    def __post_init__(self) -> None:
        self.data.flags.writeable = False


@dataclass(frozen=True, slots=True)
class SensorInfo:
    """What the integers of a sensor mean: physical value = integer * scale, per channel."""

    family: str
    """``audio``, ``imu``, ``ultrasonic``, ``event_camera`` or ``vibration`` (slow channels of a machine)."""
    channels: tuple[str, ...]
    """Names in column order, for example ``("ax", "ay", "az", "gx", "gy", "gz")``."""
    units: tuple[str, ...]
    """SI-style unit of each channel after scaling, for example ``g``, ``deg/s``; audio is ``FS`` (full scale = 1)."""
    scale: tuple[float, ...]
    """Factor from integer to unit, one per channel."""
    rate_hz: float
    """Nominal sample rate."""


@dataclass(slots=True)
class SensorCounters:
    """What went wrong on the way into a driver, each cause apart. Written by the capture thread only."""

    bad_checksum: int = 0
    out_of_range: int = 0
    resync_bytes: int = 0
    overruns: int = 0
    lost: int = 0
    silent_s: float = 0.0
    notes: dict[str, str] = field(default_factory=dict)
    """What a person should know of, by short name, for example ``{"no_frames": "no valid frame in 5 s ..."}``."""
