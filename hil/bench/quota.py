"""A full outbox at a high rate: how exactly it keeps its bytes, and whether the hub learns of every row given up."""

import tempfile
import time
from pathlib import Path
from typing import Any

from agent.cli.command import CommandError
from hil.chaos import proof
from hil.chaos.arrivals import GivenUp, arrivals, given_up
from hil.chaos.part import wait_for
from hil.chaos.site import DEVICE, Site, site

RATE_HZ = 3000
QUOTA_BYTES = 1 << 20
OVERSHOOT_SHARE = 0.01
LOOK_S = 0.01
START_S = 20.0
CAUSE = "quota"


def measure(seconds: float) -> dict[str, Any]:
    """``faults`` has a sentence for everything that must not happen. Raises CommandError when it cannot be measured."""
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as scratch, site(Path(scratch)) as place:
        place.make_model(RATE_HZ)
        place.write_agent(RATE_HZ, outbox={"max_bytes": QUOTA_BYTES}, backends=("onnx", "reference"))
        place.agent.start()
        wait_for("results", lambda: bool(proof.committed(place.state)), START_S)
        most_bytes, looks, spent_s = _watch(place, seconds)
        place.agent.stop()
        counts = proof.ledger(place.state)
        place.start_broker()
        place.hub.start()
        place.run_empty()
        place.hub.stop()
        came = arrivals(place.hub_db, DEVICE)
        gaps = given_up(place.hub_db, DEVICE)
        faults = [line["problem"] for line in proof.hub_ledger(place.hub_db) if line["problem"]]
    produced = sum(c.produced - c.refused for c in counts.values())
    evicted = sum(c.evicted for c in counts.values())
    in_gaps = sum(gap.seq1 - gap.seq0 + 1 for gap in gaps)
    overshoot = most_bytes / QUOTA_BYTES - 1
    numbers: dict[str, Any] = {
        "seconds": round(spent_s, 1),
        "results_per_s": round(produced / spent_s),
        "refused": sum(c.refused for c in counts.values()),
        "quota_bytes": QUOTA_BYTES,
        "most_bytes": most_bytes,
        "looks": looks,
        "overshoot_share": round(overshoot, 4),
        "committed": produced,
        "evicted": evicted,
        "in_gap_records_at_the_hub": in_gaps,
        "stored": len(came.seq),
    }
    if overshoot > OVERSHOOT_SHARE:
        faults.append(f"the outbox took {most_bytes} bytes, {overshoot:.1%} above its quota of {QUOTA_BYTES}")
    if not evicted:
        faults.append("nothing had to be given up: measure longer")
    return {**numbers, "faults": faults + _judge(set(came.seq.tolist()), gaps, produced, evicted)}


def _watch(place: Site, seconds: float) -> tuple[int, int, float]:
    """The most bytes that the outbox's files ever had, how often that was looked at, and for how long."""
    most_bytes = looks = 0
    begin_s = time.monotonic()
    while (spent_s := time.monotonic() - begin_s) < seconds:
        if not place.agent.running:
            raise CommandError(f"the agent ended by itself: {place.agent.tail()}")
        most_bytes = max(most_bytes, _bytes(place.state))
        looks += 1
        time.sleep(LOOK_S)
    return most_bytes, looks, spent_s


def _bytes(state: Path) -> int:
    """The file and its WAL; SQLite's index of the WAL is shared memory with a name."""
    total = 0
    for name in ("outbox.db", "outbox.db-wal"):
        try:
            total += (state / name).stat().st_size
        except FileNotFoundError:  # before the first commit, or after the last
            continue
    return total


def _judge(stored: set[int], gaps: list[GivenUp], produced: int, evicted: int) -> list[str]:
    """One boot, one class: what is gone is exactly what the gap records say, and older than all that is left."""
    faults = []
    gone = {seq for gap in gaps for seq in range(gap.seq0, gap.seq1 + 1)}
    if any(gap.cause != CAUSE for gap in gaps):
        faults.append(f"gap records have other causes: {sorted({gap.cause for gap in gaps})}")
    if len(gone) != evicted:
        faults.append(f"{evicted} rows were evicted, {len(gone)} are in gap records at the hub")
    if stored | gone != set(range(1, produced + 1)):
        faults.append(f"{produced - len(stored | gone)} rows are neither stored nor in a gap record")
    if stored & gone:
        faults.append(f"{len(stored & gone)} rows are stored and in a gap record as well")
    if gone and stored and max(gone) > min(stored):
        faults.append(f"row {max(gone)} was given up while the older row {min(stored)} was kept")
    return faults
