"""The mirror to InfluxDB: what a real one stores, the escaping of hostile text, and every kind of answer."""

import gzip
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from agent.mirrors import influx
from agent.mirrors.influx import LINES, Influx, InfluxConfig
from agent.mirrors.line_protocol import line, tag_set
from tests.conftest import Running, eventually
from tests.mirror_peers import INFLUXD, Influxd, device, row, rows


@pytest.fixture(scope="module")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    if INFLUXD is None:
        pytest.skip("influxd is not installed")
    database = Influxd(tmp_path_factory.mktemp("influxd")).start()
    yield database
    database.stop()


def mirror(url: str, **settings: Any) -> Influx:
    return Influx("db", InfluxConfig.model_validate({"url": url, "database": "axond", **settings}), device())


def test_a_real_database_holds_what_was_sent(influxd: Influxd, running: Callable[[Any], Running]) -> None:
    sent = mirror(influxd.url, tags={"hall": "Nord, 7"})
    running(sent)
    results = [row(n, "whole", text='a "b" \\ c', nothing=None, ok=True) for n in range(3)]
    before_ns = time.time_ns()
    sent.offer(results)
    eventually(lambda: influxd.count("whole") == 3, "three points")
    [series] = influxd.query('SELECT * FROM "whole"')
    points = [dict(zip(series["columns"], values, strict=True)) for values in series["values"]]
    assert [point["number"] for point in points] == [0, 1, 2]
    assert {(p["label"], p["score"], p["text"], p["ok"]) for p in points} == {("yes", 0.5, 'a "b" \\ c', 1)}
    assert {(p["device"], p["hall"]) for p in points} == {("dev7", "Nord, 7")}
    assert all(abs(point["time"] - before_ns) < 60e9 for point in points)
    assert "nothing" not in series["columns"]
    eventually(lambda: sent.state().connected, "the state")
    assert sent.state().error is None


def test_as_many_as_wait_go_in_batches(influxd: Influxd, running: Callable[[Any], Running]) -> None:
    sent = mirror(influxd.url)
    sent.offer(rows(LINES + 100, "many"))
    running(sent)
    eventually(lambda: sent.state().sent == LINES + 100, "all lines")
    assert influxd.count("many") == LINES + 100


def test_a_column_that_changes_its_type_costs_those_points_only(
    influxd: Influxd, running: Callable[[Any], Running]
) -> None:
    sent = mirror(influxd.url)
    running(sent)
    sent.offer([row(0, "typed", odd=1.5)])
    eventually(lambda: sent.state().sent == 1, "the first point")
    sent.offer([row(1, "typed", odd="text"), row(2, "typed", odd=2)])
    eventually(lambda: sent.state().dropped == 1, "one point refused")
    assert influxd.count("typed") == 2
    assert sent.state().sent == 2
    assert "field type conflict" in str(sent.state().error)


# Surrogates are no text at all; the rest is what the protocol can carry.
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(
    lambda text: not re.search(r"\\[ ,=]|\\\Z", text)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tags=st.dictionaries(NAMES.filter(lambda key: key != "time"), NAMES, max_size=3),
    text=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20),
    column=NAMES.filter(lambda name: name not in ("time", "n")),
)
@example(tags={"a,b": "c,d", "e=f": "g=h", "i j": "k l"}, text="\\", column=" ")
@example(tags={"a\\\\b": "\\\\d"}, text='\\"', column="\\\\f")
@example(tags={'"a"': '"b"'}, text="\\\\", column='"c"')
@example(tags={",": "=", "=": ","}, text="\n", column="=")
def test_hostile_text_comes_back_as_it_was(influxd: Influxd, tags: dict[str, str], text: str, column: str) -> None:
    assume(column not in tags and "n" not in tags)  # one query shows both by name
    influxd.write(line("hostile", tag_set(tags), [(column, text), ("n", 1)], 1_700_000_000_000_000_000))
    [series] = influxd.query('SELECT * FROM "hostile"')
    influxd.query('DROP MEASUREMENT "hostile"')
    [point] = [dict(zip(series["columns"], values, strict=True)) for values in series["values"]]
    assert point == {"time": 1_700_000_000_000_000_000, "n": 1, column: text, **tags}


def test_what_the_protocol_cannot_carry_is_made_bearable() -> None:
    assert tag_set({"a": r"1\,2\\ 3\=4", r"b\ ": "\\\n5"}) == r",a=1\,2\ 3\=4,b\ =\ 5"
    assert tag_set({"b": "x\ny", "a": "back\\", "empty": "", "\\": "gone"}) == r",a=back,b=x\ y"
    fields = [("time", 1), ("nan", float("nan")), ("inf", float("-inf")), ("none", None), ("huge", 10**400)]
    assert line("m", "", fields, 5) == "m time_=1.0 5"
    assert line("m", "", [("none", None)], 5) == ""


class Scripted(ThreadingHTTPServer):
    """Answers with what the test says, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[tuple[str, dict[str, str], str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body.decode()))
        status, said = self.server.answers.pop(0) if self.server.answers else (204, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influx, "INTERVAL_S", 0.05)


@contextmanager
def scripted() -> Iterator[tuple[Scripted, str]]:
    with Scripted() as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_version_two_is_asked_as_its_api_wants_it(tmp_path: Path, running: Callable[[Any], Running]) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    with scripted() as (server, url):
        sent = mirror(url, database=None, org="my org", bucket="b&b", token_file=str(token))
        worker = running(sent)
        sent.offer(rows(2))
        eventually(lambda: sent.state().sent == 2, "two lines")
        worker.stop()
        [(path, headers, body)] = server.asked
        assert path == "/api/v2/write?org=my+org&bucket=b%26b&precision=ns"
        assert headers["Authorization"] == "Token s3cret"
        assert headers["Content-Encoding"] == "gzip"
        assert [text.split(" ")[0] for text in body.split("\n")] == ["kw,device=dev7"] * 2


@pytest.mark.parametrize(
    ("status", "said", "refused", "sentence"),
    [
        (400, b'{"code":"invalid","message":"unable to parse"}', 2, "answers 400: unable to parse"),
        (413, b"too large", 2, "answers 413: too large"),
        (503, b"", 0, "answers 503"),
        (401, b'{"error":"authorization failed"}', 0, "answers 401: authorization failed"),
        (429, b"slow down", 0, "answers 429: slow down"),
        (500, b"\xff\xfe", 0, "answers 500"),
        (502, b"\x1b[31m\x07red\r\n", 0, "answers 502: [31m red"),
    ],
)
def test_lines_at_fault_are_dropped_and_anything_else_is_tried_again_with_the_same_bytes(
    running: Callable[[Any], Running], status: int, said: bytes, refused: int, sentence: str
) -> None:
    with scripted() as (server, url):
        server.answers = [(status, said)]
        sent = mirror(url)
        worker = running(sent)
        sent.offer(rows(2))
        eventually(lambda: sentence in str(sent.state().error) or sent.state().sent, "the sentence")
        sent.offer(rows(1))
        eventually(lambda: sent.state().sent == 3 - refused, "the rest")
        worker.stop()
        assert sent.state().dropped == refused
        assert bool(sent.state().error) == bool(refused), "the next may be refused again: that is said for a while"
        if not refused:
            assert server.asked[0] == server.asked[1]


def test_writes_of_which_a_part_is_refused_now_and_then_are_said_once(
    running: Callable[[Any], Running], caplog: pytest.LogCaptureFixture
) -> None:
    with scripted() as (server, url):
        sent = mirror(url)
        running(sent)
        for number in range(1, 6):
            server.answers = [(400, b'{"error":"partial write: field type conflict dropped=%d"}' % number), (204, b"")]
            sent.offer(rows(5))
            eventually(lambda: sent.state().sent + sent.state().dropped == 6 * number - 1, "the part")  # noqa: B023
            sent.offer(rows(1))
            eventually(lambda: sent.state().waiting == 0, "the next one")
        assert (sent.state().sent, sent.state().dropped) == (15, 15)
    assert [r.levelname for r in caplog.records if "partial write" in r.getMessage()] == ["WARNING"]


def test_a_token_file_that_goes_away_is_said_and_waited_for(tmp_path: Path, running: Callable[[Any], Running]) -> None:
    with scripted() as (_, url):
        sent = mirror(url, database=None, org="o", bucket="b", token_file=str(tmp_path / "token"))
        running(sent)
        sent.offer(rows(1))
        eventually(lambda: "token" in str(sent.state().error), "the sentence")
        (tmp_path / "token").write_text("t")
        eventually(lambda: sent.state().sent == 1, "the line")


def test_a_token_that_is_none_is_said_and_not_shown(tmp_path: Path, running: Callable[[Any], Running]) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n# from the database")
    with scripted() as (server, url):
        sent = mirror(url, database=None, org="o", bucket="b", token_file=str(token))
        running(sent)
        sent.offer(rows(1))
        sentence = eventually(lambda: sent.state().error, "the sentence")
        assert f"token_file {token} must hold one line" in sentence
        assert "s3cret" not in sentence
        assert server.asked == []


def test_a_peer_that_never_answers_is_cut_off(running: Callable[[Any], Running]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sent = mirror(f"http://127.0.0.1:{server.getsockname()[1]}")
        worker = running(sent)
        sent.offer(rows(1))
        client, _ = server.accept()
        with client:
            assert client.recv(65536)
            worker.stop(2.5)
            names = lambda: [thread.name for thread in threading.enumerate()]  # noqa: E731
            eventually(lambda: "influx-post" not in names(), "the end of the request", 5)
    assert sent.state().sent == 0
    assert sent.state().waiting == 1


def test_what_waits_is_sent_before_the_end(running: Callable[[Any], Running]) -> None:
    with scripted() as (server, url):
        sent = mirror(url)
        worker = running(sent)
        sent.offer(rows(1))
        eventually(lambda: sent.state().sent == 1, "the first line")
        sent.offer(rows(2))
        worker.stop()
        assert sent.state().sent == 3
        assert len(server.asked) == 2
