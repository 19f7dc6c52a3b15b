"""Labelled recordings, as the sensors would have delivered them, and the windows that a live pipeline cuts."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.packet import Packet, SensorInfo
from models import speech
from models.base import ModelError, Window
from models.window import WindowSpec
from models.window_events import NS_PER_US, make_windower

ACTIVITIES = ("walking", "walking_upstairs", "walking_downstairs", "sitting", "standing", "laying")
"""UCI HAR's labels 1..6."""
IMU_CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")
IMU_INFO = SensorInfo(
    family="imu",
    channels=IMU_CHANNELS,
    units=("g",) * 3 + ("deg/s",) * 3,
    scale=(16 / 32768,) * 3 + (2000 / 32768,) * 3,
    rate_hz=50.0,
)
"""WitMotion's scaling: +-16 g and +-2000 deg/s in int16."""
LEAD_IN_S = 0.5
"""Silence before a recording, so that the onset is heard as in a quiet room."""


class DataError(ModelError):
    """A dataset is missing, incomplete or not what it should be."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One labelled item. ``data`` is (n, channels) integer, or EVENT[n]; ``group`` names what must not be split (a
    speaker).

    A clip says one thing: its first window counts. A run goes on, and ``truth`` (n,) has the label of every sample:
    then all its windows count, each by the label of its last sample.
    """

    name: str
    label: str
    group: str
    data: npt.NDArray[Any]
    info: SensorInfo
    truth: npt.NDArray[np.str_] | None = None
    held: int = 0
    """Samples of ``data`` that were missing and hold the last value."""


def audio_info(rate_hz: float) -> SensorInfo:
    """One microphone with 16-bit samples."""
    return SensorInfo(family="audio", channels=("mono",), units=("FS",), scale=(1 / 32768,), rate_hz=rate_hz)


def at_rate(recording: Recording, rate_hz: int) -> Recording:
    """A clip of one microphone, as one of this rate would have heard it. Raises DataError for a run."""
    if recording.truth is not None:
        raise DataError(f"{recording.name}: a run has a label for each sample, and cannot be brought to another rate")
    data = speech.resample(recording.data[:, 0], round(recording.info.rate_hz), rate_hz)[:, None]
    return replace(recording, data=data, info=audio_info(rate_hz))


def live_windows(recording: Recording, spec: WindowSpec, *, lead_in_s: float = LEAD_IN_S) -> list[tuple[Window, str]]:
    """The windows that count, as a live pipeline would cut them, and their labels; none where none begins.

    In mode ``onset`` a recording stands between digital silences; in mode ``time`` it is taken as it is.
    """
    data, info = recording.data, recording.info
    windower = make_windower(spec, info)
    lead_in = 0
    if info.family == "event_camera":
        # Time passes without events, before and after.
        first_ns, last_ns = (int(data["t_ns"][i]) for i in (0, -1)) if len(data) else (0, 0)
        windower.advance(first_ns - round(lead_in_s * 1e9))
        windows = windower.push(Packet(recording.name, seq=0, t0_ns=first_ns, dt_ns=0, data=data))
        windows += windower.advance(last_ns + spec.samples * NS_PER_US)
        ends = [int(data["t_ns"].searchsorted(window.end_ns)) for window in windows]
    else:
        dt_ns = round(1e9 / info.rate_hz)
        if spec.mode == "onset":
            lead_in = round(lead_in_s * info.rate_hz)
            before = np.zeros((lead_in, data.shape[1]), data.dtype)
            after = np.zeros((spec.samples, data.shape[1]), data.dtype)
            data = np.concatenate([before, data, after])
        windows = windower.push(Packet(recording.name, seq=0, t0_ns=0, dt_ns=dt_ns, data=data))
        ends = [round(window.end_ns / dt_ns) for window in windows]
    if recording.truth is None:
        return [(window, recording.label) for window in windows[:1]]
    last = [min(max(end - lead_in, 1), len(recording.truth)) - 1 for end in ends]
    return [(window, str(recording.truth[i])) for window, i in zip(windows, last, strict=True)]


def window_behind(samples: npt.NDArray[np.int16], info: SensorInfo, spec: WindowSpec, lead_in: int) -> Window | None:
    """Of (n, channels) the first window with its onset behind ``lead_in`` samples, less a tenth of them: what began in
    there was noise. None when none begins."""
    packet = Packet("made", seq=0, t0_ns=0, dt_ns=round(1e9 / info.rate_hz), data=samples)
    for window in make_windower(spec, info).push(packet):
        if window.t0_ns * info.rate_hz / 1e9 + spec.pre > 0.9 * lead_in:
            return window
    return None


def live_window(recording: Recording, spec: WindowSpec) -> Window | None:
    """The first window that a pipeline would cut from this recording; None when none begins."""
    return next((window for window, _ in live_windows(recording, spec)), None)
