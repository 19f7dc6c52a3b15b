"""Memory that only the start needed: what is given back, and that everything still runs."""

import zlib
from pathlib import Path

import numpy as np

from agent.memory import clean_code, give_back

SMAPS = """\
55d0a000-55d0c000 r--p 00000000 08:01 1234 /usr/bin/python3
Size:                  8 kB
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
55d0c000-55d10000 r-xp 00002000 08:01 1234 /usr/bin/python3
Anonymous:             0 kB
Swap:                  0 kB
55d10000-55d11000 r--p 00006000 08:01 1234 /usr/bin/python3 with a name of [heap]
Anonymous:             4 kB
Swap:                  0 kB
55d13000-55d14000 r--p 00009000 08:01 1234 /usr/bin/python3
Anonymous:             0 kB
Swap:                  4 kB
55d11000-55d12000 rw-p 00007000 08:01 1234 /usr/bin/python3
Anonymous:             0 kB
Swap:                  0 kB
7f00000-7f01000 r--s 00000000 08:01 99 /shared
Anonymous:             0 kB
Swap:                  0 kB
7ffc1000-7ffc2000 r-xp 00000000 00:00 0    [vdso]
Anonymous:             0 kB
Swap:                  0 kB
""".splitlines()


def test_only_what_is_the_same_in_the_file_is_dropped() -> None:
    """Not relocated or written pages (even swapped out), not what is shared with others, not what no file is behind."""
    assert list(clean_code(SMAPS)) == [(0x55D0A000, 0x2000), (0x55D0C000, 0x4000)]


def test_code_runs_on_afterwards_and_takes_less() -> None:
    before = zlib.crc32(bytes(range(256)))
    matrix = np.arange(64.0).reshape(8, 8)
    product = matrix @ matrix
    resident_kib = _file_kib()
    give_back()
    assert _file_kib() < resident_kib / 2
    assert zlib.crc32(bytes(range(256))) == before
    assert np.array_equal(matrix @ matrix, product)


def _file_kib() -> int:
    """Resident pages of files."""
    with Path("/proc/self/status").open() as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile:"))
