"""What the agent says of itself: the status document, the birth document, and flat metrics. Reads, changes nothing."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.capture import Capture
from agent.clock import ClockKeeper
from agent.config import Config
from agent.locate import Locator
from agent.mirrors.base import Mirror
from agent.outbox import Outbox
from agent.pipeline import PipelineWorker
from agent.realtime import Scheduling
from agent.supervisor import Supervisor
from agent.uplink import Uplink
from agent.version import agent_version
from agent.web.server import HttpServer
from models.base import Inference
from models.fused import InputState


@dataclass(slots=True)
class Parts:
    """The pieces of a running agent."""

    config: Config
    outbox: Outbox
    supervisor: Supervisor
    captures: dict[str, Capture]
    pipelines: dict[str, PipelineWorker | Locator]
    uplink: Uplink | None
    started_ns: int
    mirrors: dict[str, Mirror[Any]] = field(default_factory=dict)
    scheduling: Scheduling | None = None
    http: HttpServer | None = None
    clock: ClockKeeper | None = None

    def worker_names(self) -> list[str]:
        """Of every thread that the supervisor looks after and that may fail."""
        several = (*self.captures.values(), *self.pipelines.values(), *self.mirrors.values())
        single = (self.outbox, self.uplink, self.http, self.clock)
        return [*(worker.name for worker in single if worker is not None), *(worker.name for worker in several)]


def health(parts: Parts) -> dict[str, Any]:
    """``state`` (ok, degraded, failed), ``reasons`` by part, and a ``summary`` in one line."""
    failed = parts.supervisor.health()
    # Each sentence is read once: its owner may clear it at any moment.
    sentences: list[tuple[str, str | None]] = [("outbox", parts.outbox.trouble)]
    for name, capture in parts.captures.items():
        sentences.append((f"sensor {name}", capture.outage.sentence))
        sentences += [(f"sensor {name} {key}", note) for key, note in dict(capture.driver.counters.notes).items()]
    for name, pipeline in parts.pipelines.items():
        sentences.append((f"pipeline {name}", pipeline.trouble))
    if parts.uplink:
        uplink = parts.uplink.state()
        sentences.append(("uplink", uplink.error or (None if uplink.connected else "not connected yet")))
    sentences += [(f"mirror {name}", mirror.state().error) for name, mirror in parts.mirrors.items()]
    if parts.http:
        sentences.append(("http", parts.http.trouble))
    if parts.clock:
        sentences.append(("clock", parts.clock.state().trouble))
    degraded = {part: sentence for part, sentence in sentences if sentence}
    state = "failed" if failed else "degraded" if degraded else "ok"
    reasons = {**failed, **degraded}
    return {"state": state, "reasons": reasons, "summary": "; ".join([state, *reasons.values()])[:200]}


def not_ready(parts: Parts) -> list[str]:
    """What is missing until this agent does its work: the outbox takes results, every pipeline has its model on a
    backend, and no worker is given up or hangs. Neither sensors nor the broker are: those come and go."""
    waits = [] if parts.outbox.opened.is_set() else ["the outbox is not open"]
    waits += [f"pipeline {name} is {p.info.state}" for name, p in parts.pipelines.items() if p.info.state != "live"]
    return waits + [f"{worker}: {reason}" for worker, reason in parts.supervisor.health().items()]


def snapshot(parts: Parts) -> dict[str, Any]:
    """The whole status, as ``axond status --json`` shows it."""
    return {
        "device": parts.config.device.id,
        "boot": parts.outbox.boot,
        "agent": agent_version(),
        "up_s": round((time.monotonic_ns() - parts.started_ns) / 1e9, 1),
        "health": health(parts),
        "sensors": {name: _sensor(capture) for name, capture in parts.captures.items()},
        "pipelines": {name: _pipeline(pipeline) for name, pipeline in parts.pipelines.items()},
        "outbox": asdict(parts.outbox.depth()),
        "ledger": _ledger(parts.outbox),
        "uplink": asdict(parts.uplink.state()) if parts.uplink else None,
        "mirrors": {name: asdict(mirror.state()) for name, mirror in parts.mirrors.items()},
        "http": {"listen": parts.config.http.listen, "problem": parts.http.trouble if parts.http else None},
        "restarts": parts.supervisor.restarts(),
        "clock": parts.clock.state().facts() if parts.clock else None,
        "profile": {
            **parts.config.profile.facts(),
            "scheduling": parts.scheduling.facts() if parts.scheduling else None,
        },
    }


def birth(parts: Parts) -> dict[str, Any]:
    """The birth document: streams with columns and units, models, sensors."""
    return {
        "agent": agent_version(),
        "boot": parts.outbox.boot,
        "streams": {name: {"columns": p.columns, "model": p.model} for name, p in parts.pipelines.items()},
        "sensors": {name: sensor.kind for name, sensor in parts.config.sensors.items()},
    }


def metrics(parts: Parts) -> dict[str, float]:
    """Flat numbers for fleets' tools; the uplink adds the ledger."""
    depth = parts.outbox.depth()
    values: dict[str, float] = {
        "up_s": round((time.monotonic_ns() - parts.started_ns) / 1e9, 1),
        "outbox_rows": depth.rows,
        "outbox_bytes": depth.bytes,
        "outbox_oldest_age_s": round(depth.oldest_age_s, 1),
        "outbox_evicted": depth.evicted,
        "outbox_refused": depth.refused,
        "outbox_salvaged": depth.salvaged,
        "outbox_lost": depth.lost,
        "outbox_damaged_files": depth.damaged_files,
        "outbox_unproven": depth.unproven,
        "outbox_written_bytes": depth.written_bytes,
    }
    if parts.clock:
        clock = parts.clock.state()
        values["clock_known"] = int(clock.known)
        values["clock_steps"] = clock.steps
        if clock.uncertainty_ms is not None:
            values["clock_uncertainty_ms"] = clock.uncertainty_ms
    for name, capture in parts.captures.items():
        values[f"sensor_{name}_rate_hz"] = round(capture.info.rate_hz, 2)
        values[f"sensor_{name}_lost"] = capture.info.lost
    for name, pipeline in parts.pipelines.items():
        values[f"pipeline_{name}_inferences"] = pipeline.info.inferences
        values[f"pipeline_{name}_incidents"] = pipeline.info.incidents
        if pipeline.info.drift is not None:
            values[f"pipeline_{name}_drift"] = max(pipeline.info.drift.scores.values(), default=0.0)
        if pipeline.info.quality is not None:
            values[f"pipeline_{name}_quality"] = pipeline.info.quality
        values.update(
            {
                f"pipeline_{name}_quality_{sensor}": part.quality
                for sensor, part in pipeline.info.inputs.items()
                if part.quality is not None
            }
        )
        summary = pipeline.latency.summary()
        values.update({f"pipeline_{name}_latency_{key}": value for key, value in summary.items()})
    for name, mirror in parts.mirrors.items():
        state = mirror.state()
        values[f"mirror_{name}_connected"] = int(state.connected)
        values[f"mirror_{name}_sent"] = state.sent
        values[f"mirror_{name}_dropped"] = state.dropped
        values[f"mirror_{name}_skipped"] = state.skipped
    return values


def _sensor(capture: Capture) -> dict[str, Any]:
    counters = capture.driver.counters
    samples, end_ns = capture.info.taken
    return {
        "state": capture.info.state,
        "rate_hz": round(capture.info.rate_hz, 2),
        "samples": samples,
        "lost": capture.info.lost,
        "dropped": capture.dropped_samples,
        "bad_checksum": counters.bad_checksum,
        "out_of_range": counters.out_of_range,
        "resync_bytes": counters.resync_bytes,
        "overruns": counters.overruns,
        "silent_s": round(counters.silent_s, 1),
        "reopened": capture.info.reopened,
        "since_ns": capture.info.since_ns,
        "end_ns": end_ns,
        "problem": capture.outage.sentence,
        "notes": dict(counters.notes),
    }


def _pipeline(pipeline: PipelineWorker | Locator) -> dict[str, Any]:
    last, trouble = pipeline.info.last, pipeline.trouble
    return {
        "state": pipeline.info.state,
        "health": "degraded" if trouble else "ok",
        "problem": trouble,
        "quality": pipeline.info.quality,
        "inputs": {sensor: _input(part) for sensor, part in pipeline.info.inputs.items()},
        "drift": asdict(pipeline.info.drift) if pipeline.info.drift else None,
        "model": pipeline.model,
        "backend": pipeline.info.backend,
        "incidents": pipeline.info.incidents,
        "incident": pipeline.info.incident or None,
        "inferences": pipeline.info.inferences,
        "reported": pipeline.info.reported,
        "lost_samples": pipeline.info.lost_samples,
        "given_up_samples": pipeline.info.given_up_samples,
        "latency": pipeline.latency.summary(),
        "last": None if last is None else _last(last),
    }


def _last(inference: Inference) -> dict[str, Any]:
    times = {"start_ns": inference.t0_ns, "stop_ns": inference.end_ns}
    fused = {} if inference.quality is None else {"quality": inference.quality, "missing": list(inference.missing)}
    return {"label": inference.label, "score": inference.score, **times, **fused}


def _input(part: InputState) -> dict[str, Any]:
    return {"input": part.name, "quality": part.quality, "late": part.late, "problem": part.trouble}


def _ledger(outbox: Outbox) -> dict[str, dict[str, Any]]:
    return {
        f"{boot}/{stream}": {**asdict(counts), "balanced": counts.balanced()}
        for (boot, stream), counts in outbox.ledger().items()
    }
