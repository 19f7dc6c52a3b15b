"""The network comes back and nobody waits out a back-off: in a network namespace of its own, told by the kernel."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from agent.uplink_network import NetworkWatch
from agent.uplink_retry import LATER_LONGEST_S, SOON_LONGEST_S, SOON_S, Retry
from tests.brokers import Mosquitto, free_port

NET = f"10.231.{os.getpid() % 250}"
"""Another one in each process that runs tests."""

DEVICE = """
import sys, threading, time
from pathlib import Path
from agent.mqtt import Broker, PahoLink
from agent.outage import Backoff
from agent.outbox import Outbox
from agent.uplink import Uplink

outbox = Outbox(Path(sys.argv[1]), boot="b1")
uplink = Uplink(outbox, PahoLink(Broker("@NET@.1", int(sys.argv[2])), "d1"), "d1", info=dict, metrics=dict,
                agent_version="0")
uplink._retry._soon = Backoff(300.0, 300.0)
stop = threading.Event()
for worker in (outbox, uplink):
    threading.Thread(target=worker.run, args=(stop, lambda: None), daemon=True).start()
waiting, end_s = threading.Event(), time.monotonic() + 60.0

def wait_until(condition):
    while not condition():
        if time.monotonic() > end_s:
            sys.exit(f"not within 60 s: {uplink.state()}")
        waiting.wait(0.01)

wait_until(lambda: uplink.state().error)
print("cut off", flush=True)
wait_until(lambda: uplink.state().connected)
print("connected", flush=True)
stop.set()
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace without a network, at the other end of a pair of interfaces of this machine."""
    name = f"axond{os.getpid() % 100000}"
    inside, outside = f"in{name[-6:]}", f"out{name[-6:]}"
    try:
        ip("netns", "add", name)
        ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        pytest.skip(f"no network namespace can be made here: {getattr(error, 'stderr', None) or error}")
    try:
        ip("addr", "add", f"{NET}.1/24", "dev", outside)
        ip("link", "set", outside, "up")
        ip("-n", name, "link", "set", "lo", "up")  # paho wakes itself through it
        yield name
    finally:
        subprocess.run(["ip", "link", "del", outside], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def bring_up(namespace: str) -> None:
    inside = f"in{namespace[-6:]}"
    ip("-n", namespace, "addr", "add", f"{NET}.2/24", "dev", inside)
    ip("-n", namespace, "link", "set", inside, "up")


def test_the_uplink_connects_at_once_when_the_network_is_back(
    namespace: str, tmp_path: Path, make_broker: Callable[..., Mosquitto]
) -> None:
    port = free_port()
    make_broker(extra=f"listener {port} {NET}.1\nallow_anonymous true")
    script = DEVICE.replace("@NET@", NET)
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", script, str(tmp_path / "o.db"), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as device:
        assert device.stdout is not None
        try:
            assert device.stdout.readline() == "cut off\n"
            begun_s = time.monotonic()
            bring_up(namespace)
            assert device.stdout.readline() == "connected\n"
            took_s = time.monotonic() - begun_s
        finally:
            device.kill()
    assert took_s < 10, "the back-off alone would have been 150 s or more"


def test_a_new_address_is_heard_and_what_was_before_is_not(namespace: str) -> None:
    heard = subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", HEARS.replace("@NET@", NET), f"in{namespace[-6:]}"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert heard.stdout.split() == ["False", "True", "False"]


HEARS = """
import subprocess, sys, threading
from agent.uplink_network import NetworkWatch
from agent.uplink_retry import LATER_LONGEST_S, SOON_LONGEST_S, SOON_S, Retry

def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)

stop, watch = threading.Event(), NetworkWatch()
watch.open()
ip("addr", "add", "@NET@.3/24", "dev", sys.argv[1])
watch.forget()
print(watch.rest(0.2, stop))
ip("link", "set", sys.argv[1], "up")
print(watch.rest(5.0, stop))
watch.forget()
ip("link", "set", sys.argv[1], "down")
print(watch.rest(0.2, stop))
watch.close()
"""


def test_without_the_kernels_word_waiting_is_just_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("socket.AF_NETLINK")
    watch, stop = NetworkWatch(), Event()
    watch.open()
    begun_s = time.monotonic()
    assert watch.rest(0.1, stop) is False
    assert 0.09 <= time.monotonic() - begun_s < 1.0
    stop.set()
    begun_s = time.monotonic()
    assert watch.rest(60.0, stop) is False
    assert time.monotonic() - begun_s < 1.0
    watch.close()


def test_a_young_outage_is_ended_soon_and_a_long_one_does_not_storm_the_broker() -> None:
    retry = Retry()
    retry.begin()
    waits = [retry.wait_s() for _ in range(30)]
    assert max(waits) <= SOON_LONGEST_S
    assert len(set(waits)) > 20, "jittered"
    retry._lost_s -= SOON_S
    waits = [retry.wait_s() for _ in range(30)]
    assert min(waits[-20:]) >= LATER_LONGEST_S / 2 and max(waits) <= LATER_LONGEST_S
    assert len(set(waits)) > 20
    retry.begin()
    assert retry.wait_s() <= 0.5


def test_opening_again_and_closing_twice_is_harmless() -> None:
    watch = NetworkWatch()
    watch.open()
    watch.open()
    watch.forget()
    watch.close()
    watch.close()
    assert watch.rest(0.0, Event()) is False
