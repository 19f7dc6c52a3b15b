"""Made echo waveforms of one transducer: seeded, with burst, ringing, spreading, clipping and noise.

The receiver is the transmitter: it rings after the burst, the ADC cuts off what is too loud, and each reflection is
the burst again, weaker with the square of its distance (there and back), blurred by the transducer's resonance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CARRIER_HZ = 40_000.0
SOUND_M_S = 343.0
BURST_S = 8 / CARRIER_HZ
RESONANCE_S = 80e-6
"""The transducer's envelope rises and falls with this time constant."""
RINGING_S = 250e-6
"""And its ringing, which is much louder, decays with this one once it is below the rails."""
RINGING = 40.0
"""Times full scale when the burst ends."""
STRENGTH = 0.5
"""An echo of a reflector of strength 1 at 1 m, times full scale."""
NOISE = 0.004


@dataclass(frozen=True, slots=True)
class Reflector:
    """Something that sends the burst back."""

    range_mm: float
    strength: float = 1.0


def pings(
    count: int,
    reflectors: Sequence[Reflector],
    rng: np.random.Generator,
    *,
    samples: int = 1500,
    sample_hz: float = 122_000.0,
    noise: float = NOISE,
) -> npt.NDArray[np.int16]:
    """(count, samples) int16 of as many pings at the same scene; noise and phases differ."""
    t_s = np.arange(samples) / sample_hz
    signal = rng.normal(0, noise, (count, samples))
    signal += _tone(RINGING * np.minimum(1.0, np.exp(-(t_s - BURST_S) / RINGING_S)), t_s, count, rng)
    for reflector in reflectors:
        delay_s = reflector.range_mm * 2e-3 / SOUND_M_S
        height = STRENGTH * reflector.strength / max(reflector.range_mm / 1e3, 0.05) ** 2
        signal += _tone(height * _burst(t_s - delay_s), t_s, count, rng)
    return np.rint(np.clip(signal, -1, 1) * 32767).astype(np.int16)


def _burst(t_s: Floats) -> Floats:
    """Envelope of a burst that begins at 0: the transducer swells as long as it is driven, then dies away."""
    driven = np.clip(t_s, 0.0, BURST_S)
    after = np.clip(t_s - BURST_S, 0.0, None)
    envelope: Floats = (1 - np.exp(-driven / RESONANCE_S)) * np.exp(-after / RESONANCE_S)
    return envelope


def _tone(envelope: Floats, t_s: Floats, count: int, rng: np.random.Generator) -> Floats:
    phases = rng.uniform(0, 2 * np.pi, (count, 1))
    tone: Floats = envelope * np.sin(2 * np.pi * CARRIER_HZ * t_s + phases)
    return tone
