"""``axond bench store`` and ``axond bench uplink`` run and say what they promise; how good it is is for people."""

import json
import shutil

import pytest

from tests.brokers import MOSQUITTO
from tests.end_to_end.rig import axond


def test_store_beside_bare_sqlite() -> None:
    done = axond("bench", "store", "--seconds", "6", "--json", timeout_s=120)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    for name in ("group", "flood"):
        assert numbers[f"{name}_outbox_results_per_s"] > 64
        assert 0.1 < numbers[f"{name}_outbox_to_raw"] < 20
        assert numbers[f"{name}_raw_without_json_results_per_s"] > 64
    assert 1 <= numbers["group_results_in_a_transaction"] <= 64 < numbers["flood_results_in_a_transaction"]
    assert 0 < numbers["alarm_durable_p50_ms"] <= numbers["alarm_durable_p99_ms"]
    assert numbers["written_bytes_per_result"] >= 0


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_uplink_beside_a_publisher_in_c() -> None:
    done = axond("bench", "uplink", "--seconds", "6", "--outage-s", "3", "--json", timeout_s=120)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert numbers["batched_results_per_s"] == pytest.approx(100 * numbers["batched_messages_per_s"], rel=0.02)
    assert numbers["hub_stored_results_per_s"] > 1000
    # Less than 8 would be too good for a time, a label, a score and spikes; more than 20 is no batch in columns.
    assert 8 < numbers["wire_bytes_per_result"] < 20
    assert 0 < numbers["flow_agent_cpu_share_of_a_core"] < 1
    assert 0 < numbers["flow_put_to_stored_p50_ms"] <= numbers["flow_put_to_stored_p99_ms"]
    assert numbers["outage_backlog_results"] > 1000
    assert numbers["outage_first_fresh_s"] > 0
    if shutil.which("gcc") or shutil.which("cc"):
        assert 0 < numbers["single_to_c"] < 2
    else:
        assert "C compiler" in numbers["left_out"]
