"""The agent's store and uplink without sensors and models, in a process of its own: what they cost, and how late.

``python -m hil.bench.source FOLDER PORT DEVICE RATE_HZ SECONDS`` puts a result at each of these moments, ``ROUNDS``
times for so long, after alarms enough to fill the WAL: from then on it is written over, as in all the years after. It
prints one JSON line: the CPU's share of each round, the putting included, and whether all was delivered.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread

from agent.mqtt import Broker, PahoLink
from agent.outbox import Outbox
from agent.realtime import settle
from agent.record import Priority
from agent.uplink import Uplink
from agent.wire import Row
from hil.bench.results import made

STREAM = "made"
BOOT = "bench0"
CONNECT_S = 20.0
ROUNDS = 3
WARM_UP_S = 6.0
WARM_UP_HZ = 200.0
"""Of alarms, each a commit of some 2 pages: more than the 1000 pages of a WAL."""
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
    put_evenly(partial(outbox.put, STREAM, priority=Priority.ALARM), WARM_UP_HZ, WARM_UP_S)
    shares = [cpu_share(partial(outbox.put, STREAM), float(rate_hz), float(seconds)) for _ in range(ROUNDS)]
    drained = outbox.wait_drained(DRAIN_S)
    stop.set()
    for thread in reversed(threads):
        thread.join(DRAIN_S)
    print(json.dumps({"cpu_shares": shares, "drained": drained}))


def cpu_share(put: Callable[[Row], object], rate_hz: float, seconds: float) -> float:
    """Of one core, by all threads but this one and by ``put`` on this one."""
    begin_s, begin_cpu_s = time.monotonic(), _others_cpu_s()
    putting_s = put_evenly(put, rate_hz, seconds)
    return (_others_cpu_s() - begin_cpu_s + putting_s) / (time.monotonic() - begin_s)


def _others_cpu_s() -> float:
    return time.process_time() - time.thread_time()


def put_evenly(put: Callable[[Row], object], rate_hz: float, seconds: float) -> float:
    """Results captured now, at even distances; the CPU time that ``put`` itself took."""
    took_s, begin_s = 0.0, time.monotonic()
    for i, row in enumerate(made(round(rate_hz * seconds), 0)):
        time.sleep(max(0.0, begin_s + i / rate_hz - time.monotonic()))
        result = {**row, "t_ns": time.monotonic_ns()}
        time.thread_time()  # what the clock costs on cold caches is not put's
        before_s = time.thread_time()
        put(result)
        took_s += time.thread_time() - before_s
    return took_s


if __name__ == "__main__":
    main()
