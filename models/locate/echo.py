"""Raw echoes of one transducer to distances: matched filter, threshold behind the ringing, sub-sample peaks.

A ping is one row of ``ultrasonic.echo``: what the receiver heard from the begin of the transmit burst on. It is mixed
down from 40 kHz and filtered with a burst-shaped (Hann) window, which is the matched filter for a burst with soft
flanks. Clipping at the ADC's rails only flattens the ringing and near echoes; where they begin and end stays.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.packet import SensorInfo
from models.base import BadModel

Floats = npt.NDArray[np.float64]

CARRIER_HZ = 40_300.0
"""Air transducers for 40 kHz are loudest a little above it."""
FILTER_S = 262e-6
"""Length of the matched filter: the usual burst of 8 periods, and what the transducer adds to it."""
HALF_BURST_S = 100e-6
"""From the begin of an 8-period burst to its middle, where the filter peaks."""
BLIND_S = 600e-6
"""While the transducer is driven nothing can be heard: 10 cm."""
QUIET_S = 2.4e-3
"""From here on the ringing is over; the noise floor is the median of what follows."""
FLOOR_RATIO = 6.0
"""An echo peaks this much above the noise floor."""
RISE_RATIO = 3.0
"""And this much above the mean of what was heard one to three filter lengths before, so that ringing is none."""
MOST_ECHOES = 16
SOUND_M_S = 343.0
"""At 20 degC."""
MM_PER_M = 1000.0


@dataclass(frozen=True, slots=True)
class Echoes:
    """The echoes of one ping, nearest first; arrays of one length, which may be 0."""

    range_mm: Floats
    amplitude: Floats
    """Height of the peak, in the sensor's integers."""
    width_s: Floats
    """Between the two sides of the peak at half its height."""
    floor: float
    """Noise floor, in the sensor's integers."""


def sample_rate_hz(info: SensorInfo) -> float:
    """What the channel names of a waveform sensor say: a column is named after its time, for example ``8.2us``.

    Raises BadModel for sensors that give no waveforms.
    """
    try:
        first, last = (float(info.channels[index].removesuffix("us")) for index in (0, -1))
    except ValueError:
        first = last = 0.0
    if info.family != "ultrasonic" or not last > first:
        raise BadModel("the sensor gives no echo waveforms (columns named after their time, as ultrasonic.echo does)")
    return (len(info.channels) - 1) * 1e6 / (last - first)


def envelope(waveforms: npt.NDArray[np.generic], sample_hz: float) -> Floats:
    """(pings, samples) integers to what the matched filter says, centred on the samples, in the same unit."""
    values = waveforms.astype(np.float64)
    values -= np.median(values, axis=1, keepdims=True)
    samples = values.shape[1]
    window = np.hanning(max(3, round(FILTER_S * sample_hz)) + 2)[1:-1]
    size = samples + len(window) - 1
    carrier = np.exp(-2j * np.pi * CARRIER_HZ / sample_hz * np.arange(samples))
    spectrum = np.fft.fft(values * carrier, size, axis=1) * np.fft.fft(window / window.sum(), size)
    begin = (len(window) - 1) // 2
    found: Floats = np.abs(np.fft.ifft(spectrum, axis=1))[:, begin : begin + samples]
    return found


def find_echoes(curve: Floats, sample_hz: float, sound_m_s: float = SOUND_M_S) -> Echoes:
    """The echoes in the ``envelope`` (samples,) of one ping."""
    length = max(3, round(FILTER_S * sample_hz))
    quiet = curve[round(QUIET_S * sample_hz) :]
    floor = float(np.median(quiet if len(quiet) else curve))
    total = np.concatenate([[0.0], np.cumsum(curve)])
    index = np.arange(len(curve))
    near, far = np.maximum(index - length, 0), np.maximum(index - 3 * length, 0)
    before = (total[near] - total[far]) / np.maximum(near - far, 1)
    loud = curve > np.maximum(RISE_RATIO * before, FLOOR_RATIO * floor)
    loud[: max(round(BLIND_S * sample_hz), 3 * length // 2)] = False
    middle = curve[1:-1]
    peaks = np.flatnonzero(loud[1:-1] & (middle >= curve[:-2]) & (middle > curve[2:])) + 1
    if len(peaks) > MOST_ECHOES:
        peaks = np.sort(peaks[np.argsort(-curve[peaks], kind="stable")[:MOST_ECHOES]])
    delay_s = np.maximum((peaks + _offset(curve, peaks)) / sample_hz - HALF_BURST_S, 0.0)
    return Echoes(delay_s * sound_m_s * MM_PER_M / 2, curve[peaks], _widths(curve, peaks) / sample_hz, floor)


def _offset(curve: Floats, peaks: npt.NDArray[np.int64]) -> Floats:
    """Where the parabola through a peak and its neighbours is highest, in samples from the peak."""
    left, top, right = curve[peaks - 1], curve[peaks], curve[peaks + 1]
    bend = left - 2 * top + right
    offset: Floats = np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, -1.0), 0.0)
    return offset


def _widths(curve: Floats, peaks: npt.NDArray[np.int64]) -> Floats:
    widths = np.zeros(len(peaks))
    for i, peak in enumerate(peaks.tolist()):
        low = np.flatnonzero(curve < curve[peak] / 2)
        after = np.searchsorted(low, peak)
        begin = int(low[after - 1]) if after else 0
        end = int(low[after]) if after < len(low) else len(curve)
        widths[i] = end - begin
    return widths
