"""Any bytes into any parser."""

import os
from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from drivers.lib.serial_sensor import Parser
from tests.drivers.damage import START_NS, check_rows

EXAMPLES = int(os.environ.get("AXOND_FUZZ", "150"))
"""Inputs per parser; ``AXOND_FUZZ=1000000`` for the long run."""

long_or_short = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)


def pieces(*true: bytes) -> st.SearchStrategy[list[bytes]]:
    """Chunks of a stream: noise, whole frames, and halves of them."""
    halves = [part for frame in true for part in (frame, frame[: len(frame) // 2], frame[len(frame) // 2 :])]
    return st.lists(st.one_of(st.binary(max_size=80), st.sampled_from(halves)), max_size=30)


def check_any_bytes(make: Callable[[], Parser], *true: bytes) -> None:
    """No input raises, whatever the pieces; totals never shrink; rows are well formed; all pieces together and the
    same bytes at once give the same rows and counts."""

    @given(pieces(*true))
    @long_or_short
    def run(chunks: list[bytes]) -> None:
        parser, whole = make(), make()
        found = []
        before = parser.tally()
        for chunk in chunks:
            rows = parser.feed(chunk, START_NS)
            check_rows(rows)
            found.append(rows.values)
            after = parser.tally()
            assert (after >= before).all()
            before = after
        expected = whole.feed(b"".join(chunks), START_NS)
        assert np.array_equal(np.concatenate([expected.values[:0], *found]), expected.values)
        assert parser.tally().tolist() == whole.tally().tolist()
        assert 0 <= int(parser.tally()[2]) <= sum(map(len, chunks))

    run()
