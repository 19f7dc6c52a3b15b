"""``axond bench chaos``, short: nothing is lost at random kills, nothing is stored twice; and a loss would be told."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hil.chaos import proof
from hil.chaos.faults import Story
from hil.chaos.part import wait_for
from hil.chaos.site import Site, site
from tests.brokers import MOSQUITTO
from tests.end_to_end.rig import axond

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

RATE_HZ = 100


def test_twelve_kills_lose_nothing() -> None:
    done = axond("bench", "chaos", "--kills", "12", "--seeds", "1", "--seconds", "0", "--json", timeout_s=240)
    assert done.stdout, done.stderr
    numbers = json.loads(done.stdout)
    assert (numbers["lost"], numbers["stored_twice"]) == (0, 0), numbers
    assert numbers["stored"] == numbers["committed"] > 100
    assert sum(event["what"] == "killed" for event in numbers["runs"][0]["events"]) == 12
    assert numbers["longest_drain_s"] < 60
    # Twelve kills in half a minute are too few for a share of duplicates that means something.
    assert [fault for fault in numbers["faults"] if "came again" not in fault] == []
    assert done.returncode == bool(numbers["faults"])


def test_every_other_fault_for_a_moment_loses_nothing() -> None:
    done = axond("bench", "chaos", "--kills", "0", "--seeds", "1", "--seconds", "2", "--json", timeout_s=240)
    assert done.stdout, done.stderr
    numbers = json.loads(done.stdout)
    assert (numbers["lost"], numbers["stored_twice"]) == (0, 0), numbers
    (run,) = numbers["runs"]
    begun = [event["fault"] for event in run["events"] if event["what"] == "fault begins"]
    left_out = [event["fault"] for event in run["events"] if event["what"] == "left out"]
    assert sorted(begun + left_out) == [
        "broker away",
        "hub database locked",
        "network cut",
        "network delayed",
        "slow consumer",
    ]
    assert all(run["drains_s"][fault] < 60 for fault in begun)
    assert [fault for fault in numbers["faults"] if "came again" not in fault] == []


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that has ended, with some hundred results, all of them stored."""
    folder = tmp_path_factory.mktemp("site")
    with site(folder) as place:
        place.make_model(RATE_HZ)
        place.write_agent(RATE_HZ)
        place.start()
        wait_for("200 results", lambda: sum(proof.committed(place.state).values()) >= 200, 20)
        place.agent.stop()
        wait_for(
            "all stored", lambda: not proof.lacking(proof.committed(place.state), proof.hub_ledger(place.hub_db)), 20
        )
        place.hub.stop()
        return place


def judged(place: Site, folder: Path, *damage: str) -> proof.Verdict:
    """The verdict on a copy of the hub's store, after these statements."""
    copy = folder / "hub.db"
    with closing(sqlite3.connect(place.hub_db)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    with closing(sqlite3.connect(copy)) as db, db:
        for statement in damage:
            db.execute(statement)
    return proof.judge(proof.committed(place.state), copy, place.state, RATE_HZ)


def test_the_proof_accepts_what_is_right(proven: Site, tmp_path: Path) -> None:
    verdict = judged(proven, tmp_path)
    assert verdict.faults == []
    assert verdict.stored == verdict.committed >= 200
    assert (verdict.lost, verdict.stored_twice) == (0, 0)


def test_the_proof_sees_a_batch_that_is_not_there(proven: Site, tmp_path: Path) -> None:
    verdict = judged(proven, tmp_path, "DELETE FROM batches WHERE id = (SELECT max(id) - 1 FROM batches)")
    assert verdict.lost > 0
    assert verdict.stored_twice == 0
    assert any("not in the store" in fault for fault in verdict.faults)


def test_the_proof_sees_books_that_do_not_agree(proven: Site, tmp_path: Path) -> None:
    verdict = judged(proven, tmp_path, "UPDATE streams SET upto = upto + 1")
    assert verdict.faults
    assert verdict.lost == 0


def test_the_proof_sees_a_result_that_is_stored_twice() -> None:
    rows = [(seq, 1_700_000_000_000_000 + 10_000 * seq + seq % 7) for seq in range(1, 300)]
    assert proof.doubled(rows, RATE_HZ) == 0
    assert proof.doubled([*rows, (300, rows[-1][1] + 3)], RATE_HZ) == 1, "the same moment under another number"
    assert proof.doubled([*rows, (299, rows[-1][1] + 10_000)], RATE_HZ) == 1, "another moment under the same number"


def test_the_story_knows_what_each_killed_agent_had_committed(tmp_path: Path) -> None:
    with site(tmp_path) as place:
        place.make_model(RATE_HZ)
        place.write_agent(RATE_HZ)
        place.start()
        story = Story(place, RATE_HZ)
        wait_for("50 results", lambda: sum(proof.committed(place.state).values()) >= 50, 20)
        place.agent.kill()
        story.note()
        assert sum(story.expected.values()) >= 50
        place.agent.start()
        story.drain()
        assert not proof.lacking(story.expected, proof.hub_ledger(place.hub_db))
