"""Where metrics come from: the histogram of durations, the kernel's numbers, certificates that cannot be read."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent import config
from agent.app import App
from agent.latency import BOUNDS_S, Histogram, Latency
from agent.web import process
from agent.web.exposition import page
from agent.web.metrics import samples


@settings(deadline=None)  # the first one imports the library
@given(st.lists(st.integers(0, 20_000_000_000), max_size=50))
def test_a_histogram_counts_each_duration_once(took_ns: list[int]) -> None:
    histogram = Histogram()
    for one in took_ns:
        histogram.add(one)
    (metric,) = text_string_to_metric_families(
        page("", [("inference_duration_seconds", ("p",), histogram)]).body.decode()
    )
    buckets = {sample.labels["le"]: sample.value for sample in metric.samples if sample.name.endswith("_bucket")}
    assert list(buckets) == [*map(str, BOUNDS_S), "+Inf"]
    for bound, count in buckets.items():
        assert count == sum(one <= float(bound) * 1e9 for one in took_ns)
    sums = {sample.name: sample.value for sample in metric.samples if not sample.name.endswith("_bucket")}
    assert sums["axond_inference_duration_seconds_count"] == len(took_ns)
    assert sums["axond_inference_duration_seconds_sum"] == sum(took_ns) / 1e9


@pytest.mark.parametrize("version", ["x", "", "1..0", "2.0.x", "\xff", "0.0.1", "1.0.0;escaping=x", "9" * 5000])
def test_whatever_a_scraper_accepts_it_gets_metrics(version: str) -> None:
    found = page(f"text/html, application/openmetrics-text;version={version};q=0.5", [("ready", (), 1.0)])
    assert found.body.endswith(b"\naxond_ready 1.0\n# EOF\n")
    assert found.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    plain = page(f"text/plain;version={version}", [("ready", (), 1.0)])
    assert plain.body.endswith(b"\naxond_ready 1.0\n") and "version=0.0.4" in plain.content_type


def test_the_bounds_grow() -> None:
    assert all(a < b for a, b in pairwise(BOUNDS_S))


def test_latency_is_of_results_that_became_durable() -> None:
    latency = Latency()
    latency.inferred(1, (10, 20, 30, 40, 50))
    latency.inferred(2, (10, 20, 30, 40, 50))
    latency.durable(1, 3_000_010)
    latency.durable(7, 100)
    assert sum(latency.whole.counts) == 1 and latency.whole.sum_ns == 3_000_000


@contextmanager
def child_with_a_child() -> Iterator[subprocess.Popen[str]]:
    nested = "import sys; print('up', flush=True); sys.stdin.read()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {nested!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as made:
        assert made.stdout is not None and made.stdout.readline() == "up\n"
        yield made
        made.communicate("")


def test_children_and_theirs_are_counted() -> None:
    with child_with_a_child() as made:
        found = process.children(os.getpid())
        below = process.children(made.pid)
        assert made.pid in found and len(below) == 1 and below[0] in found
        both = process.total([made.pid, *below])
        assert both.threads >= 2 and both.descriptors >= 6 and both.pss_bytes > 1e6
    assert process.usage(made.pid) == process.Usage()
    assert made.pid not in process.children(os.getpid())


def test_no_time_of_a_child_is_forgotten_when_it_ends() -> None:
    """Else the counter would fall, and Prometheus take that for a restart and all the time for new."""
    before_s = process.waited_for_cpu_s()
    code = "import time\nwhile time.process_time() < 0.2: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as made:
        os.waitid(os.P_PID, made.pid, os.WEXITED | os.WNOWAIT)
        ended = process.usage(made.pid)
        assert ended.cpu_s >= 0.19 and process.waited_for_cpu_s() == before_s
    assert process.usage(made.pid) == process.Usage()
    assert process.waited_for_cpu_s() >= before_s + ended.cpu_s - 0.02


def scrape(tmp_path: Path, text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Metrics of an agent that was never started."""
    path = tmp_path / "axond.toml"
    path.write_text(f'[device]\nstate_dir = "{tmp_path / "state"}"\n' + text)
    parts = App(config.load(path))._parts
    found = page("", samples(parts)).body.decode()
    return {
        metric.name: {tuple(sample.labels.values()): sample.value for sample in metric.samples}
        for metric in text_string_to_metric_families(found)
    }


def test_an_agent_that_does_not_work_yet_is_not_ready(tmp_path: Path) -> None:
    found = scrape(
        tmp_path, '[sensors.imu0]\ndriver = "synthetic"\n[pipelines.p]\nsensors = ["imu0"]\nmodel = "activity"\n'
    )
    assert found["axond_ready"] == {(): 0} and found["axond_outbox_open"] == {(): 0}
    assert found["axond_pipeline_state"][("p", "loading")] == 1
    assert "axond_state_dir_free_bytes" not in found
    assert "axond_uplink_connected" not in found


def test_a_certificate_that_cannot_be_read_has_no_end(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")
    found = scrape(tmp_path, f'[uplink]\nhost = "x"\nca_file = "{tmp_path / "ca.crt"}"\n')
    assert "axond_certificate_expiry_timestamp_seconds" not in found
    assert found["axond_uplink_connected"] == {(): 0}
