"""Other speakers, rooms and microphones from one waveform. All functions are pure given the random generator."""

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float64]
_FRAME = 256


def resample(wave: Wave, factor: float) -> Wave:
    """Play ``factor`` times faster: pitch and formants rise, the duration falls."""
    count = max(2, int(len(wave) / factor))
    return np.interp(np.arange(count) * factor, np.arange(len(wave)), wave)


def stretch(wave: Wave, factor: float, *, frame: int = _FRAME) -> Wave:
    """Speak ``factor`` times slower at the same pitch: a phase vocoder (Flanagan and Golden 1966).

    ``frame``: samples of a spectrum, a multiple of 4; some 32 ms.
    """
    hop = frame // 4
    window = np.hanning(frame + 1)[:-1]
    padded = np.pad(wave, frame)
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    spectra = np.fft.rfft(frames * window, axis=1)
    position = np.arange(0, len(spectra) - 2, 1 / factor)
    low = position.astype(int)
    part = (position - low)[:, None]
    magnitude = (1 - part) * np.abs(spectra[low]) + part * np.abs(spectra[low + 1])
    expected = 2 * np.pi * hop * np.arange(frame // 2 + 1) / frame
    turn = np.angle(spectra[low + 1]) - np.angle(spectra[low]) - expected
    turn = expected + turn - 2 * np.pi * np.round(turn / (2 * np.pi))
    phase = np.angle(spectra[0]) + np.cumsum(turn, axis=0)
    pieces = np.fft.irfft(magnitude * np.exp(1j * phase), frame, axis=1) * window
    out = np.zeros(hop * (len(pieces) - 1) + frame)
    for phase_index in range(frame // hop):  # pieces of one phase do not overlap: add them in one go
        group = pieces[phase_index :: frame // hop]
        start = phase_index * hop
        out[start : start + group.size] += group.ravel()[: len(out) - start]
    margin = int(frame * factor) - frame // 2
    return out[margin : len(out) - margin] / 1.5


def equalise(wave: Wave, rng: np.random.Generator, depth_db: float) -> Wave:
    """A random smooth frequency response, as microphones and rooms have it: ``depth_db`` is its standard deviation."""
    size = _fast(len(wave))
    spectrum = np.fft.rfft(wave, size)
    points = rng.normal(0, depth_db, 6)
    at = np.linspace(0, 1, len(spectrum)) ** 0.5 * 5
    return np.fft.irfft(spectrum * 10 ** (np.interp(at, np.arange(6), points) / 20), size)[: len(wave)]


def close_cut(wave: Wave, below_db: float, frame: int) -> Wave:
    """Without the beginning and end that stay so far below the loudest ``frame`` samples: people cut carelessly."""
    count = len(wave) // frame
    if not count:
        return wave
    power = (wave[: count * frame].reshape(count, frame) ** 2).mean(axis=1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-below_db / 10))
    return wave[loud[0] * frame : (loud[-1] + 1) * frame]


def reverberate(wave: Wave, rng: np.random.Generator, rate_hz: float) -> Wave:
    """A small room: an exponentially decaying noise tail behind the direct sound."""
    decay_s = rng.uniform(0.05, 0.35)
    count = int(decay_s * rate_hz)
    tail = rng.normal(0, 1, count) * np.exp(-6.9 * np.arange(count) / count)
    tail *= rng.uniform(0.1, 0.6) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    size = _fast(len(wave) + count)
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: len(wave) + count]


def coloured_noise(count: int, rng: np.random.Generator) -> Wave:
    """White to brown noise of unit power."""
    size = _fast(count)
    spectrum = np.fft.rfft(rng.normal(0, 1, size))
    spectrum /= np.maximum(np.arange(len(spectrum)), 8) ** rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, size)[:count]
    return noise / noise.std()


def coarse(wave: Wave, steps: float) -> Wave:
    """As a converter of few bits gives it, with so many steps from zero to the peak."""
    step = np.abs(wave).max() / steps
    return np.rint(wave / step) * step if step else wave


def _fast(count: int) -> int:
    """A length of ``count`` or more whose Fourier transform is quick; that of a prime takes ten times longer."""
    return 1 << max(0, count - 1).bit_length()
