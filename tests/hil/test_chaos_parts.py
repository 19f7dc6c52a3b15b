"""The parts of the rigs that prove that nothing is lost: each of them would tell if something was."""

import socket
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from agent.cli.command import CommandError
from hil.bench import memory, quota
from hil.chaos import brokers
from hil.chaos.arrivals import GivenUp
from hil.chaos.namespace import cable
from hil.chaos.part import Part, wait_for
from hil.chaos.relay import relay
from hil.chaos.site import accepts

DELAY_S = 0.2


def echo(server: socket.socket) -> None:
    """Gives back what one client sends, until it goes."""
    line, _ = server.accept()
    with line:
        while data := line.recv(4096):
            line.sendall(data)


def test_the_relay_brings_everything_late_in_both_directions() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=echo, args=(server,), daemon=True).start()
        with (
            relay(server.getsockname()[1], DELAY_S) as line,
            socket.create_connection(("127.0.0.1", line.port), timeout=5) as client,
        ):
            sent = bytes(range(256)) * 1000
            begin_s = time.monotonic()
            client.sendall(sent)
            came = b""
            while len(came) < len(sent):
                came += client.recv(65536)
            took_s = time.monotonic() - begin_s
            assert came == sent
            assert took_s >= 2 * DELAY_S
            assert line.sent_bytes == len(sent)


def test_the_relay_hangs_up_when_the_broker_does() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        relay(server.getsockname()[1], 0.0) as line,
        socket.create_connection(("127.0.0.1", line.port), timeout=5) as client,
    ):
        broker, _ = server.accept()
        broker.close()
        assert client.recv(1) == b""


def test_a_cable_that_is_pulled_is_cut(tmp_path: Path) -> None:
    with cable() as (line, why_not):
        if line is None:
            pytest.skip(f"no network namespaces here: {why_not}")
        program = (
            "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])),timeout=20)\nprint('up')"
        )
        with socket.create_server((line.host, 0)) as server:
            port = str(server.getsockname()[1])
            far = Part("far", [*line.prefix, "python3", "-c", program, line.host, port], tmp_path)
            line.pull()
            far.start()
            server.settimeout(0.5)
            with pytest.raises(TimeoutError):
                server.accept()
            line.plug()
            server.settimeout(20)
            server.accept()[0].close()
            assert far.stop() in (0, 1, -15)


def test_a_part_that_ended_by_itself_does_not_run(tmp_path: Path) -> None:
    part = Part("short", ["sh", "-c", "echo said; exit 3"], tmp_path)
    assert not part.running
    part.start()
    assert not Part("never", ["true"], tmp_path).gave_up
    wait_for("its end", lambda: not part.running, 5)
    assert part.gave_up
    assert part.stop() == 3
    assert part.tail() == "said\n"
    with pytest.raises(CommandError, match="does not run"):
        _ = part.pid


def test_a_frozen_part_is_killed_all_the_same(tmp_path: Path) -> None:
    part = Part("sleeper", ["sleep", "60"], tmp_path)
    part.start()
    with pytest.raises(CommandError, match="runs already"):
        part.start()
    part.freeze()
    assert part.running
    part.kill()
    assert not part.running
    assert not part.gave_up
    assert part.kills == 1


def test_waiting_ends_with_the_name_of_what_did_not_come() -> None:
    with pytest.raises(CommandError, match=r"not within 0\.05 s: rain"):
        wait_for("rain", lambda: False, 0.05)


@pytest.mark.parametrize("name", sorted(brokers.KINDS))
def test_every_broker_starts_and_ends(name: str, tmp_path: Path) -> None:
    kind = brokers.KINDS[name]
    try:
        running = kind.prepare(tmp_path)
    except CommandError as error:
        pytest.skip(str(error))
    if name == "rabbitmq":
        pytest.skip("takes half a minute; make interop starts it")
    running.part.start()
    try:
        wait_for("connections", lambda: accepts(running.port), kind.start_s)
    finally:
        running.part.kill()
    assert not accepts(running.port)


def gap(seq0: int, seq1: int, cause: str = "quota") -> GivenUp:
    return GivenUp("b", seq0, seq1, cause)


def test_the_quota_rig_accepts_the_oldest_rows_gone_and_told() -> None:
    assert quota._judge(set(range(51, 101)), [gap(1, 30), gap(31, 50)], 100, 50) == []


@pytest.mark.parametrize(
    ("stored", "gaps", "evicted", "word"),
    [
        (range(51, 101), [gap(1, 40), gap(41, 50, "rain")], 50, "other causes"),
        (range(51, 101), [gap(1, 49)], 50, "neither stored nor"),
        (range(51, 101), [gap(1, 49)], 49, "neither stored nor"),
        (range(51, 101), [gap(1, 50)], 40, "were evicted"),
        (range(50, 101), [gap(1, 50)], 50, "as well"),
        ([*range(1, 11), *range(51, 101)], [gap(11, 50)], 40, "older row"),
    ],
)
def test_the_quota_rig_sees(stored: list[int], gaps: list[GivenUp], evicted: int, word: str) -> None:
    assert any(word in fault for fault in quota._judge(set(stored), gaps, 100, evicted))


def test_a_slope_and_its_error_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(3)
    x = np.arange(200.0)
    slopes = [memory.line(x, 2.0 * x + rng.normal(0, 5, len(x))) for _ in range(300)]
    values, errors = np.array(slopes).T
    assert abs(values.mean() - 2.0) < 0.002
    assert abs(values.std() / errors.mean() - 1) < 0.15
