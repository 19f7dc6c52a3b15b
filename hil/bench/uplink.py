"""Results over a real broker: how many, how small, how late, and what is first after an outage."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from agent.cli.command import CommandError
from agent.link import Message
from agent.messages import batch_message
from agent.topics import ROOT, Topics
from agent.wire import SystemClock, encode, wall_us
from hil.bench import process
from hil.bench.publish import WINDOW, Publisher, build_c_publisher, c_rate
from hil.bench.results import made
from hil.bench.source import WARM_UP_S
from hil.chaos.arrivals import arrivals, stored
from hil.chaos.part import wait_for
from hil.chaos.relay import relay
from hil.chaos.site import DEVICE, START_S, Site, site

BATCH = 100
MADE_BATCHES = 500
WIRE_BATCHES = 200
FLOW_HZ = 200
OUTAGE_HZ = 500
LIVE_PACKET_MS = 10
DRAIN_S = 120.0
ROUNDS = 3
SENDER = "bench"
PLAIN = "plain"
GREETER = "greeter"
STREAM = "made"
BOOT = "bench0"


def measure(seconds: float, outage_s: float, delay_ms: float) -> dict[str, Any]:
    """Rates, bytes and milliseconds as the names say. ``outage_s`` 0: no outage. Raises CommandError.

    ``delay_ms``: of the agent's line in the outage part, each way.
    """
    numbers: dict[str, Any] = {}
    with _folder() as folder, site(folder) as place:
        place.start_broker()
        numbers |= _publishing(place, seconds / 6)
        numbers["wire_bytes_per_result"] = round(_wire_bytes(place) / (WIRE_BATCHES * BATCH), 2)
    with _folder() as folder, site(folder) as place:
        place.start_broker()
        place.hub.start()
        numbers |= _storing(place, seconds / 2)
    with _folder() as folder, site(folder) as place:
        place.start_broker()
        place.hub.start()
        numbers |= _flowing(place, max(2.0, seconds / 3))
    if outage_s:
        with _folder() as folder, site(folder) as place:
            numbers |= _outage(place, outage_s, delay_ms)
    return numbers


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="axond-bench-") as scratch:
        yield Path(scratch)


def _batches(size: int, count: int, boot: str = BOOT, device: str = SENDER) -> list[Message]:
    """``count`` batches of ``size`` results, as the outbox encodes and the uplink sends them."""
    topics, clock = Topics(ROOT, device), SystemClock()
    rows = made(size * count, time.monotonic_ns() - 10**12)
    messages = []
    for i in range(count):
        part = rows[i * size : (i + 1) * size]
        payload = encode(boot, STREAM, i * size + 1, [(0, row) for row in part], clock)
        messages.append(
            batch_message(topics, boot, STREAM, i * size + 1, (i + 1) * size, payload, 1_700_000_000_000_000)
        )
    return messages


def _publishing(place: Site, seconds: float) -> dict[str, Any]:
    """Acknowledged by the broker, nobody subscribes; link and C in turn, since machines are noisy."""
    program = build_c_publisher(place.folder)
    numbers: dict[str, Any] = {}
    for name, size in (("batched", BATCH), ("single", 1)):
        messages = _batches(size, MADE_BATCHES)
        ours, raw = [], []
        for _ in range(ROUNDS):
            with Publisher(place.port, SENDER) as publisher:
                ours.append(publisher.flood(lambda i, m=messages: m[i % len(m)], seconds / ROUNDS))  # type: ignore[misc]  # mypy cannot tell m
            if program is not None:
                raw.append(c_rate(program, place.port, messages[0].topic, messages[0].payload, seconds / ROUNDS))
        rate = float(np.median(ours))
        numbers[f"{name}_results_per_s"] = round(rate * size)
        numbers[f"{name}_messages_per_s"] = round(rate)
        numbers[f"{name}_payload_bytes"] = len(messages[0].payload)
        if raw:
            numbers[f"{name}_c_messages_per_s"] = round(float(np.median(raw)))
            numbers[f"{name}_to_c"] = round(float(np.median([a / b for a, b in zip(ours, raw, strict=True)])), 3)
    if program is None:
        numbers["left_out"] = "the C publisher: there is no C compiler"
    return numbers


def _wire_bytes(place: Site) -> int:
    """What the link gives to TCP for batches: payload, topic, properties and framing."""
    messages = _batches(BATCH, WIRE_BATCHES)
    with relay(place.port, 0.0) as line, Publisher(line.port, SENDER) as publisher:
        before = line.sent_bytes
        for message in messages:
            publisher.send(message)
        publisher.settle()
        return line.sent_bytes - before


def _storing(place: Site, seconds: float) -> dict[str, Any]:
    """A sender as fast as the hub acknowledges: window and watermark are the uplink's, the hub is a real one."""
    _until_heard(place)
    begin_cpu_s = process.cpu_s(place.hub.pid)
    done, spent_s = store_laps(place, lambda spent_s, _: spent_s < seconds)
    hub_cpu_s = process.cpu_s(place.hub.pid) - begin_cpu_s
    kept = stored(place.hub_db, SENDER)
    if kept < done:
        raise CommandError(f"the hub acknowledged {done} results and holds {kept}")
    return {
        "hub_stored_results_per_s": round(done / spent_s),
        "hub_cpu_us_per_result": round(hub_cpu_s / done * 1e6, 2),
    }


def store_laps(place: Site, more: Callable[[float, int], bool]) -> tuple[int, float]:
    """Has the hub of ``place`` store results as long as ``more(seconds so far, results so far)``; both in the end."""
    topics = Topics(ROOT, SENDER)
    done, spent_s = 0, 0.0
    with Publisher(place.port, SENDER, (topics.ack("+"),)) as publisher:
        while more(spent_s, done):
            boot = f"lap{done}"
            messages = _batches(BATCH, MADE_BATCHES, boot)
            begin_s = time.monotonic()
            _stored_lap(publisher, messages, boot)
            spent_s += time.monotonic() - begin_s
            done += BATCH * len(messages)
    return done, spent_s


def _until_heard(place: Site) -> None:
    """Sends a batch until the hub has it: what is published before it subscribes is lost."""
    (message,) = _batches(1, 1, device=GREETER)
    with Publisher(place.port, GREETER) as publisher:
        end_s = time.monotonic() + START_S
        while not stored(place.hub_db, GREETER):
            publisher.send(message)
            publisher.listen(0.3)
            if time.monotonic() > end_s:
                raise CommandError(f"the hub stores nothing: {place.hub.tail()}")
        publisher.settle()


def _stored_lap(publisher: Publisher, messages: list[Message], boot: str) -> None:
    """Sends these, ``WINDOW`` beyond what the hub has, until it has all."""
    sent = upto = 0
    heard_s = time.monotonic()
    while upto < len(messages) * BATCH:
        while sent < len(messages) and sent - upto // BATCH < WINDOW:
            publisher.send(messages[sent])
            sent += 1
        received = publisher.listen(1.0)
        if received is not None:
            mark = json.loads(received.payload)
            if mark["boot"] == boot:
                upto, heard_s = max(upto, mark["upto"]), time.monotonic()
        if time.monotonic() - heard_s > START_S:
            raise CommandError(f"the hub stopped at {upto} of {len(messages) * BATCH} results")


def _flowing(place: Site, seconds: float) -> dict[str, Any]:
    """A usual flow from ``put`` to the hub's store, by the outbox and uplink of a process that has nothing else."""
    _until_heard(place)
    told = _flow("source", str(place.folder), str(place.port), SENDER, str(FLOW_HZ), str(seconds))
    if not told["drained"]:
        raise CommandError("the hub did not acknowledge everything in time")
    came = arrivals(place.hub_db, SENDER)
    warm = came.t_us > came.t_us.min() + WARM_UP_S * 1e6
    p50, p99 = np.percentile(came.latency_ms[warm], (50, 99))
    plain = _flow("plain", str(place.port), PLAIN, str(FLOW_HZ), str(seconds))
    share, plain_share = (float(np.median(one["cpu_shares"])) for one in (told, plain))
    return {
        "flow_results_per_s": FLOW_HZ,
        "flow_agent_cpu_share_of_a_core": round(share, 4),
        "flow_plain_paho_cpu_share_of_a_core": round(plain_share, 4),
        "flow_agent_to_plain_paho": round(share / plain_share, 2),
        "flow_put_to_stored_p50_ms": round(float(p50), 1),
        "flow_put_to_stored_p99_ms": round(float(p99), 1),
    }


def _flow(module: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"hil.bench.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=float(arguments[-1]) * 3 + 60, check=False)
    if done.returncode or not done.stdout:
        raise CommandError(f"hil.bench.{module} failed: {done.stderr.strip()[-500:]}")
    return dict(json.loads(done.stdout))


def _outage(place: Site, outage_s: float, delay_ms: float) -> dict[str, Any]:
    """A whole agent whose broker is away; what is captured after its return is fresh, all before is backlog."""
    place.make_model(OUTAGE_HZ)
    with relay(place.port, delay_ms / 1e3) if delay_ms else nullcontext(place) as line:
        place.write_agent(OUTAGE_HZ, packet_ms=LIVE_PACKET_MS, port=line.port)
        place.start()
        place.broker.kill()
        time.sleep(outage_s)
        place.start_broker()
        back_us = wall_us()
        wait_for("the backlog is delivered", lambda: _is_drained(place, back_us), DRAIN_S)
        place.agent.stop()
    came = arrivals(place.hub_db, DEVICE)
    old = came.t_us < back_us
    drained_us = came.received_us[old].max()
    first_us = came.received_us[~old].min()
    live = came.latency_ms[~old & (came.received_us >= first_us) & (came.t_us >= first_us) & (came.t_us < drained_us)]
    numbers: dict[str, Any] = {
        "outage_s": outage_s,
        "outage_delay_ms": delay_ms,
        "outage_results_per_s": OUTAGE_HZ,
        "outage_backlog_results": int(np.count_nonzero(old)),
        "outage_first_fresh_s": round(float(first_us - back_us) / 1e6, 2),
        "outage_drained_s": round(float(drained_us - back_us) / 1e6, 2),
    }
    for share in (50, 99):
        ms = float(np.percentile(live, share)) if len(live) else None
        numbers[f"outage_live_p{share}_ms"] = None if ms is None else round(ms, 1)
    return numbers


def _is_drained(place: Site, back_us: int) -> bool:
    """Nothing waits that was made before: the oldest row in the outbox is young, and results are delivered."""
    outbox = place.status().get("outbox", {})
    age_s = (wall_us() - back_us) / 1e6
    return place.delivers() and outbox.get("oldest_age_s", age_s) < min(age_s, 1.0)
