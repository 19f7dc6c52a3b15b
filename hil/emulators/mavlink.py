"""An autopilot on a pseudo-terminal that streams MAVLink; pymavlink packs its messages."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from hil.emulators.case import Case, words
from hil.emulators.serial_port import RowsEmulator

SYSTEM, COMPONENT = 1, 1
MAX_ROW_BYTES = 12 + 62 + 12 + 28 + 12 + 9
"""The largest row: HIGHRES_IMU, ATTITUDE and HEARTBEAT, all v2."""


class MavlinkEmulator(RowsEmulator):
    """Plays (n, 9) rows ax ay az gx gy gz mx my mz in the message's own units, with an ATTITUDE before each.

    A HEARTBEAT goes out every second. The sender's time is 0 when row 0 is taken. Needs the package pymavlink.
    """

    def __init__(
        self,
        rows: npt.NDArray[Any],
        rate_hz: float,
        link: Path,
        *,
        message: str = "RAW_IMU",
        version: int = 2,
        baud: int = 115200,
    ) -> None:
        from pymavlink.dialects.v10 import common as v1
        from pymavlink.dialects.v20 import common as v2

        super().__init__(rows, link, rate_hz, baud, MAX_ROW_BYTES)
        self._dialect = v1 if version == 1 else v2
        self._sender = self._dialect.MAVLink(None, SYSTEM, COMPONENT)
        self._message = message
        self._heartbeat_s = -1

    def encode(self, first: int, count: int) -> list[bytes]:
        return [self._row(index, row) for index, row in enumerate(self.played(first, count), first)]

    def _row(self, index: int, row: npt.NDArray[Any]) -> bytes:
        dialect, boot_us = self._dialect, round(index * 1e6 / self.rate_hz)
        values = row.tolist()
        wire = b""
        if boot_us // 1_000_000 > self._heartbeat_s:
            self._heartbeat_s = boot_us // 1_000_000
            wire += self._pack(dialect.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3))
        wire += self._pack(dialect.MAVLink_attitude_message(boot_us // 1000, 0.1, -0.2, 1.5, 0.0, 0.0, 0.0))
        kind = getattr(dialect, f"MAVLink_{self._message.lower()}_message")
        if self._message == "HIGHRES_IMU":
            return wire + self._pack(kind(boot_us, *values, 1013.25, 0.0, 12.5, 25.0, 0x0FFF))
        return wire + self._pack(kind(boot_us if self._message == "RAW_IMU" else boot_us // 1000, *values))

    def _pack(self, message: Any) -> bytes:
        packed: bytes = bytes(message.pack(self._sender))
        self._sender.seq = (self._sender.seq + 1) % 256
        return packed


CASES = (
    Case(
        "imu.mavlink",
        {"baud": 921600, "rate_hz": 200},
        lambda link: MavlinkEmulator(words(9), 200, link, baud=921600),
        package="pymavlink",
    ),
)
