"""The names of all metrics, with what they mean. ``packaging/observability/METRICS.md`` is made from this table."""

from dataclasses import dataclass
from typing import Literal

PREFIX = "axond_"
Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. Counters count from the start of the process, those of ``outbox`` as their help says."""

    name: str
    """Without the prefix, with ``_total`` where it is a counter."""
    kind: Kind
    labels: tuple[str, ...]
    help: str


def _families(kind: Kind, labels: str, table: str) -> tuple[Family, ...]:
    """Lines of name and help."""
    lines = (line.split(maxsplit=1) for line in table.strip().splitlines())
    return tuple(Family(name, kind, tuple(labels.split()), text) for name, text in lines)


FAMILIES = (
    *_families("info", "version python machine", "build_info  1, with the version of axond and what it runs on."),
    *_families("info", "boot", "boot_info  1, with the name under which this start numbers its results."),
    *_families(
        "gauge",
        "",
        """
start_time_seconds  When the process started, seconds since 1970; moves when the clock is set.
uptime_seconds  How long the process runs; falls at a restart and at nothing else.
ready  1 while the outbox is open, every model is on a backend and no worker has been given up, as /ready says.
ledger_unbalanced  Boots and streams for which produced is not delivered + pending + evicted + refused. Must be 0.
ledger_earlier_pending_rows  Results of earlier boots that are not acknowledged yet.
outbox_open  1 while the file of the outbox is open.
outbox_rows  Results that are stored and not acknowledged.
outbox_batches  Records in which they are stored.
outbox_unwritten_rows  Results in memory that wait to be committed.
outbox_bytes  Size of the file with its WAL and damaged files that are kept.
outbox_max_bytes  What outbox_bytes may grow to: outbox.max_bytes.
outbox_oldest_age_seconds  Age of the oldest result that is not acknowledged; 0 where there is none.
outbox_damaged_files  Damaged files that are kept beside the outbox.
outbox_unproven_streams  Streams in damaged files of which nobody knows exactly what they lost.
state_dir_free_bytes  Free for the agent on the file system of device.state_dir.
state_dir_size_bytes  Size of that file system.
""",
    ),
    *_families(
        "counter",
        "",
        """
outbox_evicted_rows_total  Results given up before they were acknowledged; a gap record tells of each.
outbox_refused_rows_total  Results that were never numbered, because too many waited for the disk.
outbox_salvaged_rows_total  Results saved from damaged files, since the first day of the outbox.
outbox_lost_rows_total  Results in damaged files that were not saved, since the first day of the outbox.
outbox_written_bytes_total  What the outbox has written to the flash, since its first day, as the kernel counts.
""",
    ),
    *_families("gauge", "state", "health_state  1 for the present one of ok, degraded, failed."),
    *_families("gauge", "part", "trouble  1 for each part that something is wrong with now; /health says what."),
    *_families("counter", "worker", "worker_restarts_total  How often a worker's thread failed and was started again."),
    *_families("info", "sensor driver", "sensor_info  1, with the driver of the sensor."),
    *_families("gauge", "sensor state", "sensor_state  1 for the present one of opening, live, missing, ended."),
    *_families("gauge", "sensor", "sensor_rate_hertz  Samples or events per second over the last seconds."),
    *_families(
        "counter",
        "sensor",
        """
sensor_packets_total  Packets that the driver handed over.
sensor_samples_total  Samples or events in them.
sensor_lost_samples_total  Samples known to be missing before they reached the agent.
sensor_dropped_samples_total  Samples that a pipeline did not take in time.
sensor_bad_checksums_total  Frames with a wrong checksum.
sensor_out_of_range_total  Samples that no such sensor can measure.
sensor_resync_bytes_total  Bytes skipped in search of the next frame.
sensor_overruns_total  How often the kernel or the device ran out of room.
sensor_silent_seconds_total  For how long it was open and gave nothing.
sensor_reopens_total  How often it came back after it had gone.
""",
    ),
    *_families("info", "pipeline model backend", "pipeline_info  1, with the model and the backend that answers now."),
    *_families("gauge", "pipeline state", "pipeline_state  1 for the present one of loading, live, unavailable."),
    *_families(
        "counter",
        "pipeline",
        """
requests_total  Windows, or pieces of a stream, that were given to the model, with the one that warms it up.
inferences_total  Decisions of the model.
inference_failures_total  Tries to load or ask the model that no backend could serve; the window waits.
failovers_total  How often the backend in use failed and another one took over, with the same window.
spikes_total  Input spikes of all inferences.
results_total  Inferences that the report policy made results.
pipeline_lost_samples_total  Samples missing inside windows that were inferred all the same.
pipeline_given_up_samples_total  Samples of windows that a long gap ended before they were whole.
""",
    ),
    *_families(
        "histogram",
        "pipeline",
        """
inference_duration_seconds  From spikes to the answer of the backend.
result_latency_seconds  From the capture of the last sample until the result is durable.
""",
    ),
    *_families("gauge", "pipeline", "fusion_quality  0 to 1, mean over the sensors of a pipeline that fuses several."),
    *_families("gauge", "pipeline sensor", "fusion_input_quality  0 to 1, of one sensor in the latest window."),
    *_families("counter", "pipeline sensor", "fusion_late_samples_total  Samples that came after their window's end."),
    *_families("gauge", "pipeline", "drifting  1 while what comes is unlike the training."),
    *_families("gauge", "pipeline signal", "drift_score  Evidence for that; 1 begins a drift."),
    *_families(
        "counter",
        "stream",
        """
ledger_produced_rows_total  Results of this boot.
ledger_delivered_rows_total  Of these, acknowledged.
ledger_evicted_rows_total  Of these, given up; a gap record tells of each.
ledger_refused_rows_total  Of these, never numbered.
""",
    ),
    *_families("gauge", "stream", "ledger_pending_rows  Results of this boot, queued or stored, not acknowledged."),
    *_families("info", "broker mqtt", "uplink_info  1, with the broker in use or the last one, and the MQTT version."),
    *_families(
        "gauge",
        "",
        """
uplink_connected  1 while it is.
uplink_state_seconds  For how long it has been connected or not.
uplink_in_flight_records  Sent and not acknowledged on this connection.
""",
    ),
    *_families(
        "counter",
        "",
        """
uplink_connections_total  How often it was connected.
uplink_sent_rows_total  Results given to the broker, repeated ones again.
uplink_delivered_rows_total  Results acknowledged.
uplink_rewinds_total  How often a stream was sent again, or a silent hub was asked again.
uplink_resent_records_total  Single records that were lost on the way and sent again.
""",
    ),
    *_families(
        "gauge",
        "",
        """
clock_known  1 while the kernel vouches for the clock.
clock_uncertainty_seconds  How wrong it is at most; absent while nobody knows.
clock_last_known_timestamp_seconds  When it was last known, in this run or an earlier one; absent if it never was.
clock_last_step_seconds  By how much it leapt last; above 0 is forwards.
""",
    ),
    *_families("counter", "", "clock_steps_total  How often it leapt."),
    *_families("gauge", "mirror", "mirror_connected  1 while it is."),
    *_families("gauge", "mirror", "mirror_waiting_rows  Copies that wait for the peer."),
    *_families(
        "counter",
        "mirror",
        """
mirror_sent_rows_total  Copies handed over.
mirror_dropped_rows_total  Copies given up: too many waited, or the peer refused them.
mirror_skipped_rows_total  Copies that a later one of the same stream made superfluous.
""",
    ),
    *_families(
        "gauge",
        "file",
        "certificate_expiry_timestamp_seconds  When the file is of no more use, seconds since 1970: the last authority "
        "of a ca_file ends, the first certificate of a cert_file.",
    ),
    *_families("counter", "process", "process_cpu_seconds_total  Of the agent, and of the children of its backends."),
    *_families("gauge", "process", "process_pss_bytes  Memory, where shared pages count by share."),
    *_families("gauge", "process", "process_threads  Threads, those of native libraries as well."),
    *_families("gauge", "process", "process_open_fds  Open file descriptors."),
)
