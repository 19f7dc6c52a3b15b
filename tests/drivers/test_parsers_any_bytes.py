"""Every parser takes any bytes: chosen by hypothesis, which finds the shortest that fail, and a run of the fuzzer.

``AXOND_FUZZ``: inputs per parser; ``make fuzz`` takes a million of each.
"""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drivers.damage import check_rows
from tests.drivers.fuzz_parsers import START_NS, TELLING, Target, fuzz, targets
from tests.drivers.fuzz_recordings import fuzz_recordings
from tests.drivers.seeds import seeds

COUNT = int(os.environ.get("AXOND_FUZZ", "2000"))
TARGETS = {target.name: target for target in targets()}


def target_of(name: str) -> Target:
    if name.startswith("imu.mavlink"):
        pytest.importorskip("pymavlink")
    return TARGETS[name]


pieces = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from(seeds()),
        st.tuples(st.sampled_from(seeds()), st.integers(0, 10_000)).map(lambda t: t[0][: t[1] % (len(t[0]) + 1)]),
        st.lists(st.sampled_from(TELLING.tobytes()), max_size=60).map(bytes),
    ),
    max_size=30,
)


@pytest.mark.parametrize("name", TARGETS)
@given(parts=pieces)
@settings(max_examples=max(20, COUNT // 100), deadline=None)
def test_any_bytes_are_taken_and_cuts_change_nothing(name: str, parts: list[bytes]) -> None:
    target = target_of(name)
    cut, whole = target.parser(), target.parser()
    found = [cut.feed(part, START_NS) for part in parts]
    for rows in found:
        check_rows(rows)
    once = whole.feed(b"".join(parts), START_NS)
    if not target.asks:
        assert np.array_equal(np.concatenate([once.values[:0], *(rows.values for rows in found)]), once.values)
        assert np.array_equal(np.concatenate([once.ticks[:0], *(rows.ticks for rows in found)]), once.ticks)
        assert cut.tally().tolist() == whole.tally().tolist()


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_frames_of_every_sensor_are_taken(name: str) -> None:
    fuzz(target_of(name), COUNT, seed=len(name))


def test_damaged_recordings_are_events_or_one_sentence() -> None:
    pytest.importorskip("faery")
    events, (played, refused, back) = fuzz_recordings(COUNT, seed=1)
    assert min(events, played, refused, back) > COUNT // 100
