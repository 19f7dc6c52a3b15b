"""What the running agent says of itself, beside its sensors and its uplink."""

from collections.abc import Iterator
from typing import Any

from agent.doctor.finding import Finding
from agent.doctor.scene import Scene


def look(scene: Scene) -> Iterator[Finding]:
    """Its pipelines, mirrors, restarts and books."""
    if scene.mute is not None:
        denied = "permission denied" in scene.mute
        yield Finding(
            "agent.mute", "note" if denied else "problem", "{sentence}", str(scene.state_dir),
            "ask as root, or as a member of its group" if denied
            else "if it goes on, restart the agent; what is committed is kept",
            ("sudo axond doctor --config {config}",) if denied else ("sudo systemctl restart axond",),
            {"sentence": scene.mute, "config": str(scene.path)},
        )  # fmt: skip
        return
    status = scene.status
    if status is None:
        yield Finding(
            "agent.not_running", "note", "no agent runs on {folder}; what it would use is looked at directly",
            str(scene.state_dir), "start it", ("sudo systemctl start axond", "axond run --config {config}"),
            {"folder": str(scene.state_dir), "config": str(scene.path)},
        )  # fmt: skip
        return
    yield Finding(
        "agent.runs", "ok", "the agent runs since {hours:.1f} hours", str(scene.state_dir),
        facts={"hours": status["up_s"] / 3600},
    )  # fmt: skip
    for name, pipeline in status["pipelines"].items():
        yield from _pipeline(name, pipeline)
    for name, mirror in status["mirrors"].items():
        if mirror["error"]:
            yield Finding(
                "agent.mirror", "warning", "mirror {mirror}: {sentence}", f"mirrors.{name}",
                "results are not lost by that: the uplink delivers them", (),
                {"mirror": name, "sentence": mirror["error"]},
            )  # fmt: skip
    problem = (status.get("http") or {}).get("problem")
    if problem:
        yield Finding(
            "agent.http", "warning", "health and metrics cannot be asked for: {sentence}", "http.listen",
            "free that port, or name another", ("ss -ltnp",), {"sentence": problem},
        )  # fmt: skip
    for worker, times in status["restarts"].items():
        if times:
            yield Finding(
                "agent.restarts", "warning", "{worker}, a part of the agent, failed and was restarted {times} times",
                str(worker), "its log tells why", ("journalctl -u axond -p warning -n 50 --no-pager",),
                {"worker": worker, "times": times},
            )  # fmt: skip
    for key, counts in status["ledger"].items():
        if not counts["balanced"]:
            yield Finding(
                "agent.ledger", "problem", "results of {key} are unaccounted for", key,
                "please report this with a support bundle", ("axond doctor --bundle axond-support.tar.gz",),
                {"key": key},
            )  # fmt: skip


def _pipeline(name: str, pipeline: dict[str, Any]) -> Iterator[Finding]:
    """At most one; the backend is the first to be blamed."""
    sentence = (pipeline["problem"] or pipeline["incident"] or "").removeprefix(f"pipeline {name}: ")
    facts: dict[str, object] = {"pipeline": name, "sentence": sentence, "incidents": pipeline["incidents"]}
    of_backend = pipeline["state"] != "live" or (pipeline["incident"] and pipeline["incident"] in sentence)
    if pipeline["problem"] and of_backend:
        yield Finding(
            "agent.pipeline", "problem", "pipeline {pipeline}: {sentence}", f"pipelines.{name}",
            "see which backends work here", ("axond accelerators",), facts,
        )  # fmt: skip
    elif pipeline["problem"]:
        drifts = bool(pipeline["drift"] and pipeline["drift"]["drifting"])
        yield Finding(
            "agent.drift" if drifts else "agent.inputs", "warning", "pipeline {pipeline}: {sentence}",
            f"pipelines.{name}", "see whether its sensor was moved, is broken, or meets what the model never met; that "
            "can be taught" if drifts else "see what its sensors give",
            ("axond sensors list", "axond model teach --help") if drifts else ("axond sensors list",), facts,
        )  # fmt: skip
    elif pipeline["incidents"]:
        yield Finding(
            "agent.failed_over", "warning",
            "pipeline {pipeline} changed its backend {incidents} times, last because: {sentence}",
            f"pipelines.{name}", "see which backends work here", ("axond accelerators",), facts,
        )  # fmt: skip
