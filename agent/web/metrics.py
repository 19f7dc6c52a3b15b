"""What the parts of the agent know of themselves, as the samples of ``agent.web.families``.

All is read when somebody scrapes; nothing is counted for the sake of this.
"""

import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from os import getpid
from pathlib import Path

from agent.capture import Capture
from agent.certificates import BadCertificate, certificates
from agent.latency import Histogram
from agent.ledger import Counts
from agent.snapshot import Parts, health, not_ready
from agent.version import agent_version
from agent.web import process

HEALTH_STATES = ("ok", "degraded", "failed")
SENSOR_STATES = ("opening", "live", "missing", "ended")
PIPELINE_STATES = ("loading", "live", "unavailable")

Labels = tuple[str, ...]
Value = float | Histogram
Sample = tuple[str, Labels, Value]


def samples(parts: Parts) -> Iterator[Sample]:
    """Of every metric there is now: name without the prefix, values of its labels in their order, value."""
    yield from _agent(parts)
    for name, capture in parts.captures.items():
        yield "sensor_info", (name, parts.config.sensors[name].kind), 1
        yield from _sensor(name, capture)
    for name in parts.pipelines:
        yield from _pipeline(name, parts)
    yield from _outbox(parts)
    yield from _ledger(parts.outbox.boot, parts.outbox.ledger())
    yield from _network(parts)
    yield from _clock(parts)
    yield from _certificates(parts)
    me = getpid()
    yield from _process("agent", process.usage(me))
    backends = process.total(process.children(me))
    yield from _process("backends", replace(backends, cpu_s=backends.cpu_s + process.waited_for_cpu_s()))


def _one_of(name: str, labels: Labels, states: Iterable[str], now: str) -> Iterator[Sample]:
    return ((name, (*labels, state), float(state == now)) for state in states)


def _agent(parts: Parts) -> Iterator[Sample]:
    told = health(parts)
    yield "build_info", (agent_version(), platform.python_version(), platform.machine()), 1
    yield "boot_info", (parts.outbox.boot,), 1
    yield "start_time_seconds", (), process.start_time_s()
    yield "uptime_seconds", (), (time.monotonic_ns() - parts.started_ns) / 1e9
    yield "ready", (), float(not not_ready(parts))
    yield from _one_of("health_state", (), HEALTH_STATES, told["state"])
    for part in told["reasons"]:
        yield "trouble", (part,), 1
    restarts = parts.supervisor.restarts()
    for worker in sorted({*parts.worker_names(), *restarts}):
        yield "worker_restarts_total", (worker,), restarts.get(worker, 0)


def _sensor(name: str, capture: Capture) -> Iterator[Sample]:
    info, counters = capture.info, capture.driver.counters
    yield from _one_of("sensor_state", (name,), SENSOR_STATES, info.state)
    numbers: dict[str, float] = {
        "rate_hertz": info.rate_hz,
        "packets_total": info.packets,
        "samples_total": info.taken[0],
        "lost_samples_total": info.lost,
        "dropped_samples_total": capture.dropped_samples,
        "bad_checksums_total": counters.bad_checksum,
        "out_of_range_total": counters.out_of_range,
        "resync_bytes_total": counters.resync_bytes,
        "overruns_total": counters.overruns,
        "silent_seconds_total": counters.silent_s,
        "reopens_total": info.reopened,
    }
    for key, value in numbers.items():
        yield f"sensor_{key}", (name,), value


def _pipeline(name: str, parts: Parts) -> Iterator[Sample]:
    pipeline = parts.pipelines[name]
    info = pipeline.info
    yield "pipeline_info", (name, pipeline.model, info.backend), 1
    yield from _one_of("pipeline_state", (name,), PIPELINE_STATES, info.state)
    numbers: dict[str, Value] = {
        "requests_total": info.requests,
        "inferences_total": info.inferences,
        "inference_failures_total": info.failures,
        "failovers_total": info.incidents,
        "spikes_total": info.spikes,
        "results_total": info.reported,
        "pipeline_lost_samples_total": info.lost_samples,
        "pipeline_given_up_samples_total": info.given_up_samples,
        "inference_duration_seconds": info.durations,
        "result_latency_seconds": pipeline.latency.whole,
    }
    if info.quality is not None:
        numbers["fusion_quality"] = info.quality
    if info.drift is not None:
        numbers["drifting"] = float(info.drift.drifting)
        for signal, score in dict(info.drift.scores).items():
            yield "drift_score", (name, signal), score
    for sensor, part in info.inputs.items():
        yield "fusion_late_samples_total", (name, sensor), part.late
        if part.quality is not None:
            yield "fusion_input_quality", (name, sensor), part.quality
    for key, value in numbers.items():
        yield key, (name,), value


def _outbox(parts: Parts) -> Iterator[Sample]:
    depth = parts.outbox.depth()
    numbers: dict[str, float] = {
        "outbox_open": float(parts.outbox.opened.is_set()),
        "outbox_rows": depth.rows,
        "outbox_batches": depth.batches,
        "outbox_unwritten_rows": parts.outbox.unwritten,
        "outbox_bytes": depth.bytes,
        "outbox_max_bytes": parts.config.outbox.max_bytes,
        "outbox_oldest_age_seconds": depth.oldest_age_s,
        "outbox_damaged_files": depth.damaged_files,
        "outbox_unproven_streams": depth.unproven,
        "outbox_evicted_rows_total": depth.evicted,
        "outbox_refused_rows_total": depth.refused,
        "outbox_salvaged_rows_total": depth.salvaged,
        "outbox_lost_rows_total": depth.lost,
        "outbox_written_bytes_total": depth.written_bytes,
    }
    try:
        disk = shutil.disk_usage(parts.config.device.state_dir)
    except OSError:  # the disk went away; the outbox says so
        disk = None
    if disk is not None:
        numbers |= {"state_dir_free_bytes": disk.free, "state_dir_size_bytes": disk.total}
    for key, value in numbers.items():
        yield key, (), value


def _ledger(this_boot: str, ledger: dict[tuple[str, str], Counts]) -> Iterator[Sample]:
    yield "ledger_unbalanced", (), sum(not counts.balanced() for counts in ledger.values())
    earlier = sum(counts.pending for (boot, _), counts in ledger.items() if boot != this_boot)
    yield "ledger_earlier_pending_rows", (), earlier
    for (boot, stream), counts in ledger.items():
        if boot == this_boot:
            yield "ledger_produced_rows_total", (stream,), counts.produced
            yield "ledger_delivered_rows_total", (stream,), counts.delivered
            yield "ledger_evicted_rows_total", (stream,), counts.evicted
            yield "ledger_refused_rows_total", (stream,), counts.refused
            yield "ledger_pending_rows", (stream,), counts.pending


def _network(parts: Parts) -> Iterator[Sample]:
    if parts.uplink is not None:
        uplink = parts.uplink.state()
        yield "uplink_info", (uplink.broker, uplink.mqtt), 1
        yield "uplink_connected", (), float(uplink.connected)
        yield "uplink_state_seconds", (), uplink.since_s
        yield "uplink_in_flight_records", (), uplink.in_flight
        yield "uplink_connections_total", (), uplink.connections
        yield "uplink_sent_rows_total", (), uplink.sent
        yield "uplink_delivered_rows_total", (), uplink.delivered
        yield "uplink_rewinds_total", (), uplink.rewinds
        yield "uplink_resent_records_total", (), uplink.resent
    for name, mirror in parts.mirrors.items():
        state = mirror.state()
        yield "mirror_connected", (name,), float(state.connected)
        yield "mirror_waiting_rows", (name,), state.waiting
        yield "mirror_sent_rows_total", (name,), state.sent
        yield "mirror_dropped_rows_total", (name,), state.dropped
        yield "mirror_skipped_rows_total", (name,), state.skipped


def _clock(parts: Parts) -> Iterator[Sample]:
    if parts.clock is None:
        return
    state = parts.clock.state()
    yield "clock_known", (), float(state.known)
    yield "clock_steps_total", (), state.steps
    yield "clock_last_step_seconds", (), state.last_step_ms / 1e3
    if state.uncertainty_ms is not None:
        yield "clock_uncertainty_seconds", (), state.uncertainty_ms / 1e3
    if state.last_known_us is not None:
        yield "clock_last_known_timestamp_seconds", (), state.last_known_us / 1e6


def _certificates(parts: Parts) -> Iterator[Sample]:
    """Without a sample for what cannot be read now: whoever needs the file says so."""
    tables: dict[str, object] = {f"mirrors.{name}": mirror.settings for name, mirror in parts.config.mirrors.items()}
    if parts.config.uplink:
        tables["uplink"] = parts.config.uplink
    ends: tuple[tuple[str, Callable[[Iterable[int]], int]], ...] = (("ca_file", max), ("cert_file", min))
    for where, table in tables.items():
        for key, end in ends:
            path: Path | None = getattr(table, key, None)
            if path is None:
                continue
            try:
                expiry_s = end(one.not_after_s for one in certificates(path))
            except (BadCertificate, OSError):
                continue
            yield "certificate_expiry_timestamp_seconds", (f"{where}.{key}",), expiry_s


def _process(name: str, usage: process.Usage) -> Iterator[Sample]:
    yield "process_cpu_seconds_total", (name,), usage.cpu_s
    yield "process_pss_bytes", (name,), usage.pss_bytes
    yield "process_threads", (name,), usage.threads
    yield "process_open_fds", (name,), usage.descriptors
