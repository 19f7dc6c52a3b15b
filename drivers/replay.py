"""A recording as a sensor: the packets of a ``drivers.recording`` file, at their own pace or at full speed."""

from typing import Any, ClassVar

import numpy.typing as npt

from drivers import recording
from drivers.base import ConfigPath, Driver, DriverConfig, EndOfInput
from drivers.lib.pace import Pace, Pacer
from drivers.packet import EVENT, Packet, SensorInfo


class ReplayConfig(DriverConfig):
    path: ConfigPath
    pace: Pace = "real"
    loop: bool = False


class Replay(Driver[ReplayConfig]):
    """Packets as recorded, with losses; times are shifted so that the first one begins at ``open``."""

    Config: ClassVar[type[DriverConfig]] = ReplayConfig

    def __init__(self, name: str, cfg: ReplayConfig) -> None:
        super().__init__(name, cfg)
        self._recording: recording.Recording | None = None
        self._pacer = Pacer(cfg.pace, 1.0)
        self._shift_ns = 0
        self._seq = 0

    @property
    def live(self) -> bool:
        return self.cfg.pace == "real"

    def info(self) -> SensorInfo:
        """As recorded: reads the file. Raises Misconfigured when it is broken."""
        return self._load().info

    def open(self) -> None:
        packets = self._load().packets
        self._pacer.start()
        self._shift_ns = self._pacer.t_ns(0) - packets[0].t0_ns
        self._seq = 0

    def read(self, timeout: float) -> Packet | None:
        """The next packet when its last sample is due. Raises EndOfInput after the last one without loop."""
        packets = self._load().packets
        lap, index = divmod(self._seq, len(packets))
        if lap and not self.cfg.loop:
            raise EndOfInput(f"{self.cfg.path}: the last of {len(packets)} packets has been played")
        packet = packets[index]
        shift_ns = self._shift_ns + lap * (_end_ns(packets[-1]) - packets[0].t0_ns)
        if not self._pacer.wait_until(_end_ns(packet) + shift_ns, timeout):
            return None
        self.counters.lost += packet.lost
        self._seq += 1
        return Packet(
            sensor=self.name,
            seq=self._seq - 1,
            t0_ns=packet.t0_ns + shift_ns,
            dt_ns=packet.dt_ns,
            data=_shifted(packet.data, shift_ns) if packet.data.dtype == EVENT else packet.data,
            lost=packet.lost,
        )

    def close(self) -> None:
        self._recording = None

    def _load(self) -> recording.Recording:
        if self._recording is None:
            self._recording = recording.load(self.cfg.path)
        return self._recording


def _end_ns(packet: Packet) -> int:
    """End of the last sample; events end one nanosecond behind the last one."""
    if packet.data.dtype == EVENT:
        events: npt.NDArray[Any] = packet.data
        return int(events["t_ns"][-1]) + 1
    return packet.t0_ns + packet.dt_ns * len(packet.data)


def _shifted(events: npt.NDArray[Any], shift_ns: int) -> npt.NDArray[Any]:
    moved: npt.NDArray[Any] = events.copy()
    moved["t_ns"] += shift_ns
    return moved


DRIVER = Replay
