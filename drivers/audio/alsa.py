"""A microphone through ALSA (optional extra ``alsa``): polled, so that a device that stalls blocks nobody."""

import re
import select
import time
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from drivers.base import Disconnected, Driver, DriverConfig, Misconfigured, Unavailable
from drivers.extras import how_to_install
from drivers.lib.clock import NS_PER_S, DeviceClock
from drivers.lib.sound import sound_info
from drivers.packet import Packet, SensorInfo

PERIODS = 16
"""The kernel's buffer: how many packets the reader may be late before samples are lost."""
CARDS = "/dev/snd"
SILENCE_NS = NS_PER_S
STALL_NS = 10 * NS_PER_S
"""A device that gives nothing for so long is opened again."""
_BY_NUMBER = re.compile(r"((plug)?hw:)?(card=)?\d+(,(dev=|subdev=)?\d+)*", re.IGNORECASE)


class AlsaConfig(DriverConfig):
    device: str = Field(min_length=1)
    """Stable name: ``hw:CARD=ArrayUAC10,DEV=0``, or ``plughw:...`` to let ALSA convert rate and format."""
    rate_hz: int = Field(default=16000, ge=1000, le=768_000)
    channels: int = Field(default=1, ge=1, le=64)
    packet_ms: int = Field(default=20, ge=2, le=1000)

    @field_validator("device")
    @classmethod
    def _is_stable(cls, device: str) -> str:
        if "\0" in device:
            raise ValueError("a device's name has no NUL characters")
        if _BY_NUMBER.fullmatch(device):
            raise ValueError(
                f"{device!r} names a card by number, and numbers change when devices are plugged; take a name "
                "from 'arecord -L', for example 'plughw:CARD=ArrayUAC10,DEV=0'"
            )
        return device


class Alsa(Driver[AlsaConfig]):
    """int16 samples. Times follow the device's sample clock; an overrun is counted and its length estimated."""

    Config: ClassVar[type[DriverConfig]] = AlsaConfig

    def __init__(self, name: str, cfg: AlsaConfig) -> None:
        super().__init__(name, cfg)
        self._period = max(1, cfg.rate_hz * cfg.packet_ms // 1000)
        self._pcm: Any = None
        self._start(0)

    @property
    def place(self) -> str | None:
        return CARDS

    def info(self) -> SensorInfo:
        return sound_info(self.cfg.rate_hz, self.cfg.channels)

    def open(self) -> None:
        self.close()
        alsa = _alsaaudio()
        try:
            self._pcm = alsa.PCM(
                alsa.PCM_CAPTURE,
                alsa.PCM_NONBLOCK,
                device=self.cfg.device,
                rate=self.cfg.rate_hz,
                channels=self.cfg.channels,
                format=alsa.PCM_FORMAT_S16_LE,
                periodsize=self._period,
                periods=PERIODS,
            )
            given = self._pcm.info()
            self._error: type[Exception] = alsa.ALSAAudioError
            self._poll = select.poll()
            for descriptor, events in self._pcm.polldescriptors():
                self._poll.register(descriptor, events)
        except alsa.ALSAAudioError as error:
            self.close()
            raise Unavailable(
                f"sound device {self.cfg.device} cannot be opened ({error}); names that exist: arecord -L, "
                "who holds it: fuser -v /dev/snd/*"
            ) from error
        found = given["rate"], given["channels"], given["format_name"]
        wanted = self.cfg.rate_hz, self.cfg.channels, "S16_LE"
        if found != wanted:
            self.close()
            raise Misconfigured(
                f"sound device {self.cfg.device} gives {found[0]} Hz, {found[1]} channel(s), {found[2]}; wanted are "
                f"{wanted[0]} Hz, {wanted[1]} channel(s), {wanted[2]}: set these, or use plughw: instead of hw:"
            )
        self._start(time.monotonic_ns())

    def read(self, timeout: float) -> Packet | None:
        """The next period. Raises Disconnected when the device went away, or gave nothing for 10 s."""
        if self._pcm is None:
            raise Disconnected(f"sound device {self.cfg.device} is not open")
        deadline_ns = time.monotonic_ns() + int(timeout * NS_PER_S)
        while True:
            # Read before the wait: the first read is what starts the capture.
            count, raw = self._read()
            now_ns = time.monotonic_ns()
            if count > 0:
                return self._packet(np.frombuffer(raw, "<i2").reshape(count, -1).astype(np.int16), now_ns)
            self._watch_silence(now_ns)
            if now_ns >= deadline_ns:
                return None
            self._poll.poll(max(1, (deadline_ns - now_ns) // 1_000_000))

    def close(self) -> None:
        pcm, self._pcm = self._pcm, None
        if pcm is not None:
            pcm.close()

    def _start(self, now_ns: int) -> None:
        self._clock = DeviceClock(self.cfg.rate_hz)
        self._count = self._seq = 0
        self._end_ns = self._t0_ns = 0
        self._overrun = False
        self._data_ns = now_ns
        self._silent_before_s = self.counters.silent_s

    def _read(self) -> tuple[int, bytes]:
        """Frames and bytes that are there now; (0, b"") for none."""
        try:
            count, raw = self._pcm.read()
        except self._error as error:
            raise Disconnected(f"sound device {self.cfg.device} went away ({error}); was it unplugged?") from error
        if count < 0:
            # -EPIPE: the buffer was full before we came. The library has prepared the device again.
            self.counters.overruns += 1
            self._overrun = True
            return 0, b""
        return count, raw

    def _watch_silence(self, now_ns: int) -> None:
        silent_ns = now_ns - self._data_ns
        if silent_ns >= SILENCE_NS:
            self.counters.silent_s = self._silent_before_s + silent_ns / NS_PER_S
            self.counters.notes["no_samples"] = f"sound device {self.cfg.device} is open but gives no samples"
        if silent_ns >= STALL_NS:
            raise Disconnected(
                f"sound device {self.cfg.device} gave no samples for {STALL_NS // NS_PER_S} s; it is opened again"
            )

    def _packet(self, data: np.ndarray, now_ns: int) -> Packet:
        count = len(data)
        lost = 0
        if self._overrun:
            lost = lost_samples(self._end_ns, now_ns, count, self.cfg.rate_hz)
            self._overrun = False
        self._data_ns = now_ns
        self._silent_before_s = self.counters.silent_s
        self.counters.notes.pop("no_samples", None)
        self.counters.lost += lost
        self._count += lost + count
        # The tick is the end of the last sample: that is what cannot be later than its arrival.
        self._end_ns = int(self._clock.update(np.array([self._count]), np.array([now_ns]))[0])
        self._t0_ns = max(self._t0_ns, self._end_ns - round(count * NS_PER_S / self.cfg.rate_hz))
        packet = Packet(self.name, self._seq, self._t0_ns, round(NS_PER_S / self.cfg.rate_hz), data, lost)
        self._seq += 1
        return packet


def lost_samples(last_end_ns: int, arrival_ns: int, count: int, rate_hz: int) -> int:
    """Samples between the end of the last packet and the first of ``count`` samples that have just arrived."""
    if last_end_ns == 0:
        return 0
    return max(0, round((arrival_ns - last_end_ns) * rate_hz / NS_PER_S) - count)


def _alsaaudio() -> ModuleType:
    try:
        import alsaaudio
    except ImportError as error:
        raise Unavailable(f"the ALSA library for Python is missing ({error}): {how_to_install('alsa')}") from error
    module: ModuleType = alsaaudio
    return module


DRIVER = Alsa
