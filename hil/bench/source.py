"""The agent's store and uplink without sensors and models, in a process of its own: what they cost, and how late.

``python -m hil.bench.source FOLDER PORT DEVICE RATE_HZ SECONDS`` puts a result at each of these moments. It prints one
JSON line: the CPU time of everything but the putting itself, and how long it lasted.
"""

import json
import sys
import time
from pathlib import Path
from threading import Event, Thread

from agent.mqtt import Broker, PahoLink
from agent.outbox import Outbox
from agent.realtime import settle
from agent.uplink import Uplink
from hil.bench.results import made

STREAM = "made"
BOOT = "bench0"
CONNECT_S = 20.0
WARM_UP_S = 1.0
DRAIN_S = 10.0


def main() -> None:
    folder, port, device, rate_hz, seconds = sys.argv[1:]
    outbox = Outbox(Path(folder) / "outbox.db", boot=BOOT)
    uplink = Uplink(
        outbox,
        PahoLink(Broker("127.0.0.1", int(port)), device),
        device,
        info=lambda: {},
        metrics=lambda: {},
        agent_version="bench",
    )
    stop = Event()
    threads = [Thread(target=worker.run, args=(stop, lambda: None), daemon=True) for worker in (outbox, uplink)]
    for thread in threads:
        thread.start()
    end_s = time.monotonic() + CONNECT_S
    while not uplink.state().connected:
        if time.monotonic() > end_s:
            sys.exit(f"no connection: {uplink.state().error}")
        time.sleep(0.01)
    settle()
    _put(outbox, float(rate_hz), WARM_UP_S)
    begin_s, begin_cpu_s = time.monotonic(), _cpu_s()
    putting_s = _put(outbox, float(rate_hz), float(seconds))
    spent_s, cpu_s = time.monotonic() - begin_s, _cpu_s() - begin_cpu_s
    drained = outbox.wait_drained(DRAIN_S)
    stop.set()
    for thread in reversed(threads):
        thread.join(DRAIN_S)
    print(json.dumps({"seconds": spent_s, "cpu_s": cpu_s + putting_s, "drained": drained}))


def _cpu_s() -> float:
    """Of all threads but this one."""
    return time.process_time() - time.thread_time()


def _put(outbox: Outbox, rate_hz: float, seconds: float) -> float:
    """Results captured now, at even distances; the CPU time that ``put`` itself took."""
    took_s, begin_s = 0.0, time.monotonic()
    for i, row in enumerate(made(round(rate_hz * seconds), 0)):
        time.sleep(max(0.0, begin_s + i / rate_hz - time.monotonic()))
        result = {**row, "t_ns": time.monotonic_ns()}
        time.thread_time()  # what the clock costs on cold caches is not put's
        before_s = time.thread_time()
        outbox.put(STREAM, result)
        took_s += time.thread_time() - before_s
    return took_s


if __name__ == "__main__":
    main()
