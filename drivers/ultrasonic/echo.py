"""Raw echo waveforms of one transducer behind a microcontroller: a row is the whole echo of one ping.

Frames of ``drivers.lib.tick_frames`` of kind 2: the samples of the ADC as i16, the first one taken at the tick.
"""

from typing import ClassVar

from pydantic import Field, model_validator

from drivers.base import DriverConfig
from drivers.lib.serial_sensor import SerialConfig, SerialSensor
from drivers.lib.tick_frames import CRC_BYTES, HEADER, WAVEFORM, TickFrameParser, TickTimeline
from drivers.lib.timeline import Rows
from drivers.lib.watch import STUCK_S, Still
from drivers.packet import SensorInfo

US_PER_S = 1_000_000


class EchoConfig(SerialConfig):
    port: str = Field(min_length=1)
    """Path, best below /dev/serial/by-id, or ``vid:pid[:serial]``."""
    baud: int = Field(default=921600, ge=9600, le=12_000_000)
    rate_hz: float = Field(default=10, ge=0.1, le=200)
    """Pings per second."""
    samples: int = Field(default=1500, ge=2, le=16_384)
    """Samples of one echo."""
    sample_hz: float = Field(default=122_000, ge=1000, le=10_000_000)
    """Sample rate of the ADC."""

    @model_validator(mode="after")
    def _fits_the_line(self) -> "EchoConfig":
        needed = 10 * self.rate_hz * (HEADER.itemsize + 2 * self.samples + CRC_BYTES)
        if needed > self.baud:
            raise ValueError(
                f"{self.samples} samples at {self.rate_hz:g} Hz need {needed:.0f} baud, the port has {self.baud}"
            )
        return self


class Echo(SerialSensor[EchoConfig]):
    """One row per ping, one int16 column per sample; a column is named after its time behind the first sample."""

    Config: ClassVar[type[DriverConfig]] = EchoConfig

    product = "echo recorder"
    bauds = (921600, 115200, 1000000, 2000000, 460800, 230400)
    needed = "waveforms with as many samples as configured"

    def info(self) -> SensorInfo:
        count = self.cfg.samples
        names = tuple(f"{index * US_PER_S / self.cfg.sample_hz:.1f}us" for index in range(count))
        return SensorInfo("ultrasonic", names, ("FS",) * count, (1 / 32768,) * count, self.cfg.rate_hz)

    def new_parser(self) -> TickFrameParser:
        rate_hz = self.cfg.rate_hz
        self._still = Still(
            "stuck_waveform",
            f"every sample has been the same for {STUCK_S} s: the ADC or its input is dead",
            rate_hz,
            self.counters,
        )
        counter = Still(
            "stuck_counter",
            f"the frame counter has stood still for {STUCK_S} s: the microcontroller repeats one frame",
            rate_hz,
            self.counters,
        )
        return TickFrameParser(WAVEFORM, "<i2", self.cfg.samples, self.cfg.baud, counter)

    def _new_timeline(self) -> TickTimeline:
        return TickTimeline(self.cfg.rate_hz)

    def _judge(self, rows: Rows) -> None:
        self._still.update(rows.values)


DRIVER = Echo
