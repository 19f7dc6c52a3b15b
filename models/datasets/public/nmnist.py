"""N-MNIST: recordings 2 to 1000 of the small set that comes with SLAYER, without every eighth pair."""

import numpy as np

from models.datasets.nmnist import EVENT_BYTES
from models.datasets.public.content import Files, table, take
from models.datasets.recording import DataError

FOLDER = "test/test_files/NMNISTsmall/"
IDS = tuple(number for number in range(2, 1001) if number // 2 % 8 != 0)
"""The pairs in between are held out."""
TEST_PAIR = 1
LABELS = """
0419213143536186940911243273905607618793983307498094144656100171630211026783904674688315717116302910
4920020271866345913385477458673461996037294464970929511232359176282274978321183610001727304652648993
0710203546637580910312234750627985921156412539390596413404804368767572116894152239672035436589742734
8919287974131102394921477449257244212876922381651164583151927444589567993709063907548094128761030118
2039406177819205122749718396031126768395857611315525870977509092481616518340836239211521323724697242
8113065930924712941890667998014415703584712595598836970757119237324162755726364042600003223141546472
8705142832415460849801102232446577889747320861689409041547749858638699188659725085110967093088967847
2674592316392280771987099462141551736432560446724338003282370110233843647785970316244759690714273684
552711568584992977874269174257071037650617850347757869610971305644241776036
"""
"""The digit of each of IDS: MNIST's own labels, of which the source has a list elsewhere."""
_PATHS = tuple(f"{FOLDER}{number}.bs2" for number in IDS)
_WANTED = frozenset(_PATHS)


def wants(path: str) -> bool:
    """Whether the file is one of the dataset's recordings."""
    return path in _WANTED


def remake(found: Files) -> dict[str, bytes]:
    """The dataset, of its recordings as they are at the source. Raises DataError."""
    files, rows = {}, []
    digits = "".join(LABELS.split())
    for number, label, content in zip(IDS, digits, take(found, _PATHS), strict=True):
        if len(content) % EVENT_BYTES or not content:
            raise DataError(f"has {number}.bs2 of {len(content)} bytes, expected {EVENT_BYTES} for each event")
        high, middle, low = np.frombuffer(content, np.uint8).reshape(-1, EVENT_BYTES)[:, 2:].T.astype(np.int64)
        t_us = (high & 127) << 16 | middle << 8 | low
        split = "test" if number // 2 % 8 == TEST_PAIR else "train"
        files[f"nmnist_bs2.tar.xz/{number}.bs2"] = content
        rows.append((f"{number}.bs2", label, len(t_us), t_us[-1], int((np.diff(t_us) >= 0).all()), split))
    return {**files, "labels.csv": table("file,label,n_events,t_last_us,monotonic,split", rows)}
