"""A small recording, for the tests of recordings and of their replay."""

import numpy as np

from drivers.packet import Packet, SensorInfo

INFO = SensorInfo("imu", ("x", "y"), ("g", "g"), (0.5, 0.25), 100.0)


def packets(count: int = 5, start_ns: int = 7_000_000_000) -> list[Packet]:
    rng = np.random.default_rng(0)
    made, at_ns = [], start_ns
    for i in range(count):
        lost = 2 if i == 2 else 0
        at_ns += lost * 10_000_000
        data = rng.integers(-99, 99, (i + 1, 2)).astype(np.int16)
        made.append(Packet("imu0", i, at_ns, 10_000_000, data, lost))
        at_ns += 10_000_000 * len(data)
    return made


def same(left: Packet, right: Packet) -> bool:
    return np.array_equal(left.data, right.data) and left.data.dtype == right.data.dtype and left.lost == right.lost
