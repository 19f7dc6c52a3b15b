"""One request to one response: methods, paths, headers, and any bytes in place of a request; the table ``[http]``."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import config
from agent.errors import ConfigError
from agent.web.config import DEFAULT_LISTEN, split_listen
from agent.web.request import Page, respond
from agent.web.server import HEAD_BYTES

ROUTES = {"/a": lambda accept: Page(json.dumps({"accept": accept}).encode()), "/b": lambda _: Page(b"b", "text/plain")}


def ask(head: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; checks what every response must be."""
    return parsed(respond(head.encode("latin-1"), ROUTES))


def parsed(response: bytes) -> tuple[int, dict[str, str], bytes]:
    top, _, body = response.partition(b"\r\n\r\n")
    line, *rest = top.decode("latin-1").split("\r\n")
    version, status, _ = line.split(" ", 2)
    headers = dict(one.split(": ", 1) for one in rest)
    assert version == "HTTP/1.0" and headers["Connection"] == "close" and headers["Cache-Control"] == "no-store"
    return int(status), headers, body


def test_get_and_head() -> None:
    status, headers, body = ask("GET /a?x=1 HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n")
    assert (status, json.loads(body)) == (200, {"accept": "text/html"})
    assert headers["Content-Type"] == "application/json" and headers["Content-Length"] == str(len(body))
    status, headers, body = ask("HEAD /b HTTP/1.1\r\n\r\n")
    assert (status, headers["Content-Length"], headers["Content-Type"], body) == (200, "1", "text/plain", b"")
    assert ask("GET http://127.0.0.1:1/b HTTP/1.1\r\n\r\n")[2] == b"b"


def test_what_is_not_there_says_what_is() -> None:
    status, _, body = ask("GET /etc/passwd HTTP/1.1\r\n\r\n")
    assert status == 404 and body == b"nothing is here; there are /a /b\n"
    assert ask("GET /a/ HTTP/1.1\r\n\r\n")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(method: str) -> None:
    status, headers, _ = ask(f"{method} /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
    assert status == 405 and headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("BREW /a HTTP/1.1\r\n\r\n", 501),
        ("GET /a HTTP/9.9\r\n\r\n", 505),
        ("GET /a HTTP/x\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("\r\n\r\n", 400),
        ("GET http://[x HTTP/1.1\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\n" + "X: y\r\n" * 200 + "\r\n", 431),
        ("GET /" + "a" * HEAD_BYTES, 431),
    ],
)
def test_a_bad_request_is_said_to_be_one(head: str, status: int) -> None:
    found, headers, body = ask(head)
    assert found == status and headers["Content-Type"].startswith("text/plain") and body.endswith(b"\n")


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda b: b"GET /a HTTP/1.1\r\n" + b + b"\r\n\r\n"))
def test_any_bytes_get_a_whole_response(head: bytes) -> None:
    status, headers, body = parsed(respond(head, ROUTES))
    assert 200 <= status < 600
    assert len(body) in (0, int(headers["Content-Length"]))


def load(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "axond.toml"
    path.write_text(text)
    return config.load(path).http.listen


def test_where_to_listen(tmp_path: Path) -> None:
    assert load(tmp_path, "") == [DEFAULT_LISTEN] == ["127.0.0.1:10473"]
    assert load(tmp_path, '[http]\nlisten = "0.0.0.0:80"') == ["0.0.0.0:80"]
    assert load(tmp_path, '[http]\nlisten = ["127.0.0.1:80", "[::1]:80"]') == ["127.0.0.1:80", "[::1]:80"]
    assert load(tmp_path, "[http]\nlisten = []") == []
    assert split_listen("[::1]:10473") == ("::1", 10473)


@pytest.mark.parametrize(
    "listen",
    ["", "80", "localhost:80", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:80", "[127.0.0.1]:80", ":80"],
)
def test_a_place_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match=r"axond\.toml: http\.listen"):
        load(tmp_path, f'[http]\nlisten = "{listen}"')
