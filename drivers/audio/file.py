"""Sound files as a microphone: WAV, FLAC and what else libsndfile reads, as int16 at real or full speed."""

import stat
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
from pydantic import Field

from drivers.base import ConfigPath, Driver, DriverConfig, EndOfInput, Misconfigured
from drivers.lib.clock import NS_PER_S
from drivers.lib.pace import Pace, Pacer
from drivers.lib.sound import sound_info
from drivers.packet import Packet, SensorInfo

INTEGER_SUBTYPES = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"}
"""libsndfile gives these as int16 by dropping bits; it would turn floating point into zeros."""
UNKNOWN_BYTES = 0x7FFF0000
"""Programs that write WAV to a pipe cannot go back to fill the length in: they announce this much or more."""


class FileConfig(DriverConfig):
    path: ConfigPath | tuple[ConfigPath, ...]
    """One file, or files that are played one after the other without a gap."""
    rate_hz: int = Field(default=8000, ge=1, le=768_000)
    channels: int = Field(default=1, ge=1, le=64)
    pace: Pace = "real"
    loop: bool = False
    packet_ms: int = Field(default=20, ge=1, le=10_000)

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path,) if isinstance(self.path, Path) else self.path


class FileAudio(Driver[FileConfig]):
    """Plays files. The times of the samples form one exact grid from ``open`` on, over file ends and loops."""

    Config: ClassVar[type[DriverConfig]] = FileConfig

    def __init__(self, name: str, cfg: FileConfig) -> None:
        super().__init__(name, cfg)
        self._pacer = Pacer(cfg.pace, cfg.rate_hz)
        self._packet_samples = max(1, cfg.rate_hz * cfg.packet_ms // 1000)
        self._file: soundfile.SoundFile | None = None
        self._index = 0
        self._block: np.ndarray | None = None
        self._sample = 0
        self._seq = 0

    @property
    def live(self) -> bool:
        return self.cfg.pace == "real"

    def info(self) -> SensorInfo:
        return sound_info(self.cfg.rate_hz, self.cfg.channels)

    def open(self) -> None:
        """Check every file, start the clock. Raises Misconfigured, naming the file and what is wrong with it."""
        self.close()
        if not self.cfg.paths:
            raise Misconfigured("path is an empty list, expected one or more sound files")
        for path in self.cfg.paths:
            self._open(path).close()
        self._index = 0
        self._file = self._open(self.cfg.paths[0])
        self._block = None
        self._sample = self._seq = 0
        self._pacer.start()

    def read(self, timeout: float) -> Packet | None:
        """The next ``packet_ms`` (less at the end of a file). Raises EndOfInput after the last file without loop."""
        if self._block is None:
            self._block = self._next_block()
        count = len(self._block)
        if not self._pacer.wait(self._sample + count, timeout):
            return None
        packet = Packet(
            sensor=self.name,
            seq=self._seq,
            t0_ns=self._pacer.t_ns(self._sample),
            dt_ns=round(NS_PER_S / self.cfg.rate_hz),
            data=self._block,
        )
        self._block = None
        self._sample += count
        self._seq += 1
        return packet

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next_block(self) -> np.ndarray:
        while self._file is not None:
            path = self.cfg.paths[self._index]
            try:
                at = self._file.tell()
                block: np.ndarray = self._file.read(self._packet_samples, dtype="int16", always_2d=True)
            except (soundfile.LibsndfileError, OSError) as error:
                raise Misconfigured(f"{path}: cannot be decoded from sample {at} on ({error})") from error
            if len(block):
                return block
            if at < self._file.frames:
                raise Misconfigured(f"{path}: ends at sample {at}, its header promises {self._file.frames}")
            self._next_file()
        raise EndOfInput(f"{self.name}: the last of {len(self.cfg.paths)} sound file(s) has ended")

    def _next_file(self) -> None:
        self.close()
        self._index += 1
        if self._index == len(self.cfg.paths):
            if not self.cfg.loop:
                return
            self._index = 0
        self._file = self._open(self.cfg.paths[self._index])

    def _open(self, path: Path) -> soundfile.SoundFile:
        """An open file that matches the configuration. Raises Misconfigured."""
        if path.suffix.lower() == ".raw":
            raise Misconfigured(f"{path}: raw samples do not say their rate and type; convert them to WAV")
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise Misconfigured(f"{path}: cannot be opened (it is no regular file)")
            _check_riff(path)
            file = soundfile.SoundFile(path)
        except soundfile.LibsndfileError as error:
            raise Misconfigured(f"{path}: is not a sound file that can be read ({error})") from error
        except OSError as error:
            raise Misconfigured(f"{path}: cannot be opened ({error.strerror or error})") from error
        problem = self._mismatch(file)
        if problem:
            file.close()
            raise Misconfigured(f"{path}: {problem}")
        return file

    def _mismatch(self, file: soundfile.SoundFile) -> str | None:
        if file.samplerate != self.cfg.rate_hz:
            return f"has {file.samplerate} Hz, rate_hz is {self.cfg.rate_hz}; set rate_hz or resample the file"
        if file.channels != self.cfg.channels:
            return f"has {file.channels} channel(s), channels is {self.cfg.channels}"
        if file.subtype not in INTEGER_SUBTYPES:
            return f"holds {file.subtype} samples, expected integers; convert it to 16-bit PCM"
        if file.frames == 0:
            return "holds no samples"
        return None


def _check_riff(path: Path) -> None:
    """Raise Misconfigured when a WAV's headers promise more bytes than the file has; other formats pass."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return
        at = 12
        while True:
            file.seek(at)
            header = file.read(8)
            if len(header) < 8:
                raise Misconfigured(f"{path}: ends at byte {size} before its sound data begins; it was cut short")
            kind, length = struct.unpack("<4sI", header)
            if kind == b"data" and length >= UNKNOWN_BYTES:
                return
            if at + 8 + length > size:
                raise Misconfigured(
                    f"{path}: cut short at byte {size}: the chunk {kind.decode('ascii', 'replace')!r} at byte {at} "
                    f"announces {length} bytes, {size - at - 8} are there; copy the file again"
                )
            if kind == b"data":
                return
            at += 8 + length + length % 2


DRIVER = FileAudio
