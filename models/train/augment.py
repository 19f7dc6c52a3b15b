"""Other speakers, rooms and microphones from one waveform. All functions are pure given the random generator."""

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float64]
_FRAME = 256
_HOP = 64


def resample(wave: Wave, factor: float) -> Wave:
    """Play ``factor`` times faster: pitch and formants rise, the duration falls."""
    count = max(2, int(len(wave) / factor))
    return np.interp(np.arange(count) * factor, np.arange(len(wave)), wave)


def stretch(wave: Wave, factor: float) -> Wave:
    """Speak ``factor`` times slower at the same pitch: a phase vocoder (Flanagan and Golden 1966)."""
    window = np.hanning(_FRAME + 1)[:-1]
    padded = np.pad(wave, _FRAME)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    spectra = np.fft.rfft(frames * window, axis=1)
    position = np.arange(0, len(spectra) - 2, 1 / factor)
    low = position.astype(int)
    part = (position - low)[:, None]
    magnitude = (1 - part) * np.abs(spectra[low]) + part * np.abs(spectra[low + 1])
    expected = 2 * np.pi * _HOP * np.arange(_FRAME // 2 + 1) / _FRAME
    turn = np.angle(spectra[low + 1]) - np.angle(spectra[low]) - expected
    turn = expected + turn - 2 * np.pi * np.round(turn / (2 * np.pi))
    phase = np.angle(spectra[0]) + np.cumsum(turn, axis=0)
    pieces = np.fft.irfft(magnitude * np.exp(1j * phase), _FRAME, axis=1) * window
    out = np.zeros(_HOP * (len(pieces) - 1) + _FRAME)
    for phase_index in range(_FRAME // _HOP):  # pieces of one phase do not overlap: add them in one go
        group = pieces[phase_index :: _FRAME // _HOP]
        start = phase_index * _HOP
        out[start : start + group.size] += group.ravel()[: len(out) - start]
    margin = int(_FRAME * factor) - _FRAME // 2
    return out[margin : len(out) - margin] / 1.5


def equalise(wave: Wave, rng: np.random.Generator, depth_db: float) -> Wave:
    """A random smooth frequency response, as microphones and rooms have it: ``depth_db`` is its standard deviation."""
    spectrum = np.fft.rfft(wave)
    points = rng.normal(0, depth_db, 6)
    at = np.linspace(0, 1, len(spectrum)) ** 0.5 * 5
    return np.fft.irfft(spectrum * 10 ** (np.interp(at, np.arange(6), points) / 20), len(wave))


def reverberate(wave: Wave, rng: np.random.Generator, rate_hz: float) -> Wave:
    """A small room: an exponentially decaying noise tail behind the direct sound."""
    decay_s = rng.uniform(0.05, 0.35)
    count = int(decay_s * rate_hz)
    tail = rng.normal(0, 1, count) * np.exp(-6.9 * np.arange(count) / count)
    tail *= rng.uniform(0.1, 0.6) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    size = 1 << (len(wave) + count - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: len(wave) + count]


def coloured_noise(count: int, rng: np.random.Generator) -> Wave:
    """White to brown noise of unit power."""
    spectrum = np.fft.rfft(rng.normal(0, 1, count))
    spectrum /= np.maximum(np.arange(len(spectrum)), 8) ** rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, count)
    return noise / noise.std()
