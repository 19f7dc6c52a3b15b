"""A microphone on a microcontroller on a pseudo-terminal: samples in buffers, as PDM sketches write them."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from hil.emulators.case import Case
from hil.emulators.serial_port import SerialEmulator

SampleFormat = Literal["raw", "marked", "decimal"]
BYTES = {"raw": 2, "marked": 3, "decimal": 7}


def encode(samples: npt.NDArray[np.int16], sample_format: SampleFormat) -> bytes:
    """Samples as they go over the line."""
    if sample_format == "raw":
        return samples.astype("<i2").tobytes()
    if sample_format == "decimal":
        return b"".join(b"%d\r\n" % sample for sample in samples.tolist())
    groups = np.full((len(samples), 3), 0x0A, np.uint8)
    groups[:, 1:] = samples.astype(">i2").view(np.uint8).reshape(-1, 2)
    return groups.tobytes()


class SerialPcmEmulator(SerialEmulator):
    """Plays samples again and again; a row of the emulator is the buffer of samples that was filled when it goes out.

    Sample i is captured i sample periods after ``measured_at_ns(0)``.
    """

    def __init__(
        self,
        samples: npt.NDArray[np.int16],
        rate_hz: float,
        link: Path,
        *,
        buffer: int = 256,
        sample_format: SampleFormat = "raw",
        baud: int = 2_000_000,
    ) -> None:
        """``rate_hz``: samples per second, which is the rate of this device's own crystal."""
        super().__init__(link, rate_hz / buffer, baud, buffer * BYTES[sample_format])
        self.samples = samples
        self._buffer = buffer
        self._format = sample_format

    def played(self, first: int, count: int) -> npt.NDArray[np.int16]:
        """(count,) samples ``first ..`` since the start."""
        played: npt.NDArray[np.int16] = self.samples[np.arange(first, first + count) % len(self.samples)]
        return played

    def encode(self, first: int, count: int) -> list[bytes]:
        size = self._buffer
        rows = range(first, first + count)
        return [encode(self.played((row - 1) * size, size), self._format) if row else b"" for row in rows]


def _tone() -> npt.NDArray[np.int16]:
    tone: npt.NDArray[np.int16] = (8000 * np.sin(np.arange(16_000) * 0.17)).astype(np.int16)
    return tone


CASES = (
    Case(
        "audio.serial_pcm",
        {"baud": 500_000, "rate_hz": 16_000},
        lambda link: SerialPcmEmulator(_tone(), 16_000, link, baud=500_000),
    ),
)
