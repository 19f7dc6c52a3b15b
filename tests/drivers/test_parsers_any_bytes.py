"""Every parser of a serial sensor takes any bytes. ``AXOND_FUZZ``: inputs per parser, 1 000 000 for a thorough run."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drivers.damage import START_NS, check_rows
from tests.drivers.fuzz_parsers import Target, fuzz, seeds, targets

COUNT = int(os.environ.get("AXOND_FUZZ", "5000"))
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
        st.lists(st.sampled_from(b"\x00\x0a\x0d$,-.01RVN*\x55\x59\xaa\xfa\xfd\xfe\xff"), max_size=60).map(bytes),
    ),
    max_size=30,
)


@pytest.mark.parametrize("name", TARGETS)
@given(parts=pieces)
@settings(max_examples=max(20, COUNT // 200), deadline=None)
def test_any_bytes_are_taken_and_cuts_change_nothing(name: str, parts: list[bytes]) -> None:
    target = target_of(name)
    cut, whole = target.parser(), target.parser()
    for index, part in enumerate(parts):
        check_rows(cut.feed(part, START_NS + index))
    whole.feed(b"".join(parts), START_NS)
    assert cut.tally().tolist() == whole.tally().tolist()


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_frames_of_every_sensor_are_taken(name: str) -> None:
    fuzz(target_of(name), COUNT, seed=len(name))
