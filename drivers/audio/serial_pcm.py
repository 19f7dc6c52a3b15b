"""A microphone on a microcontroller that writes its samples to a UART or USB port (PDM or ADC sketches)."""

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from drivers.audio.pcm_streams import BLOCK_SAMPLES, LEAST, MOST, DecimalStream, MarkedStream, RawStream
from drivers.base import DriverConfig
from drivers.lib.clock import NS_PER_S, DeviceClock, Lasting
from drivers.lib.framing import Offsets
from drivers.lib.serial_sensor import Parser, SerialConfig, SerialSensor
from drivers.lib.sound import sound_info
from drivers.lib.timeline import PUNCTUAL_NS, Rows, Timeline, paused
from drivers.lib.watch import STUCK_S, Still
from drivers.packet import SensorInfo

Format = Literal["raw", "marked", "decimal"]
STREAMS: dict[Format, Callable[[int], Parser]] = {"raw": RawStream, "marked": MarkedStream, "decimal": DecimalStream}
LINE_BYTES = {"raw": 2, "marked": 3, "decimal": 2}
"""Per sample on the line, at least."""
SETTLED_NS = 6 * NS_PER_S
"""After so long the clock knows how fast the device really samples."""
RATE_TOLERANCE = 0.005
NOISE_S = 5


class SerialPcmConfig(SerialConfig):
    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=500_000, ge=9600, le=12_000_000)
    """Of no meaning on native USB, where anything that carries the samples will do."""
    rate_hz: float = Field(default=16_000, ge=1000, le=96_000)
    format: Format = "raw"

    @model_validator(mode="after")
    def _fits_the_line(self) -> "SerialPcmConfig":
        needed = 10 * LINE_BYTES[self.format] * self.rate_hz
        if needed > self.baud:
            raise ValueError(
                f"{self.format} samples at {self.rate_hz:g} Hz need {needed:.0f} baud, the port has {self.baud}"
            )
        return self


class PcmTimeline(Timeline):
    """The count of samples is the device's clock; what its rate really is, the host's clock tells."""

    def __init__(self, rate_hz: float) -> None:
        super().__init__(rate_hz)
        self._rate = rate_hz
        self._samples = DeviceClock(rate_hz)
        self._sampled = 0
        self._lasting = Lasting()
        self._start_ns = self._ended_ns = self._last_ns = 0

    @property
    def measured_hz(self) -> float | None:
        """Samples per second of the host's clock, once that is known."""
        settled = self._ended_ns - self._start_ns >= SETTLED_NS
        return self._hz() if settled else None

    def place(self, rows: Rows) -> tuple[Offsets, Offsets]:
        lost = rows.missing.copy()
        left_ns = int(rows.left_ns[-1])
        if not self._sampled:
            self._start_ns = left_ns
        else:
            lost[0] += paused(left_ns - self._ended_ns, len(lost) + int(lost.sum()), self._hz())
        lost[0] += self._slipped(self._sampled + len(lost) + int(lost.sum()), left_ns)
        index = self._sampled + np.cumsum(1 + lost)
        end_ns = int(self._samples.update(index[-1:], rows.left_ns[-1:])[0])
        period_ns = NS_PER_S / self._rate * (1 + self._samples.drift)
        t_ns = end_ns - np.rint((index[-1] - index) * period_ns).astype(np.int64)
        t_ns = np.maximum(t_ns, self._last_ns)
        self._sampled, self._ended_ns, self._last_ns = int(index[-1]), left_ns, int(t_ns[-1])
        return t_ns, lost

    def _hz(self) -> float:
        return self._rate / (1 + self._samples.drift)

    def _slipped(self, sampled: int, left_ns: int) -> int:
        """Samples that went missing without a trace: everything comes too late, and that does not get better."""
        late_ns = float(self._samples.late_ns(np.array([sampled]), np.array([left_ns]))[0])
        lasting_ns = self._lasting.update(late_ns, left_ns)
        if lasting_ns is None or self.measured_hz is None or lasting_ns < PUNCTUAL_NS:
            return 0
        return round(lasting_ns * self._hz() / NS_PER_S)


class SerialPcm(SerialSensor[SerialPcmConfig]):
    """int16 mono. Times follow the device's sample clock as the host measures it."""

    Config: ClassVar[type[DriverConfig]] = SerialPcmConfig

    product = "microphone with this format"
    bauds = (500_000, 1_000_000, 921_600, 2_000_000, 115_200)
    needed = "samples"

    _timeline: PcmTimeline

    def info(self) -> SensorInfo:
        return sound_info(self.cfg.rate_hz, 1)

    def new_parser(self) -> Parser:
        self._still = Still(
            "stuck",
            f"every sample has been the same for {STUCK_S} s: the microphone is dead",
            self.cfg.rate_hz,
            self.counters,
        )
        return STREAMS[self.cfg.format](self.cfg.baud)

    def _new_timeline(self) -> PcmTimeline:
        return PcmTimeline(self.cfg.rate_hz)

    def _judge(self, rows: Rows) -> None:
        """Counts samples at the end of the scale; notes a dead microphone, noise, and another sample rate."""
        self.counters.out_of_range += int(np.count_nonzero((rows.values == LEAST) | (rows.values == MOST)))
        self._still.update(rows.values)
        notes = self.counters.notes
        measured_hz = self._timeline.measured_hz
        if measured_hz is not None and abs(measured_hz / self.cfg.rate_hz - 1) > RATE_TOLERANCE:
            notes["sample_rate"] = (
                f"{measured_hz:.0f} samples/s arrive on {self._where}, rate_hz is {self.cfg.rate_hz:g}: set that"
            )
        else:
            notes.pop("sample_rate", None)
        noisy = isinstance(self._parser, RawStream) and self._parser.noisy_blocks
        if noisy and noisy * BLOCK_SAMPLES > NOISE_S * self.cfg.rate_hz:
            notes["noise"] = f"{self._where} has given nothing but noise for {NOISE_S} s: check baud rate and format"
        else:
            notes.pop("noise", None)


DRIVER = SerialPcm
