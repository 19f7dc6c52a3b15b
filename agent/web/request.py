"""From the head of an HTTP request to the whole response. The standard library parses; nothing here knows sockets.

This module is imported with the first request: an agent that nobody asks does not carry it.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from urllib.parse import urlsplit

from agent.web.server import HEAD_BYTES

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """What a path gives."""

    body: bytes
    content_type: str = JSON
    status: HTTPStatus = HTTPStatus.OK


Route = Callable[[str], Page]
"""Given the request's ``Accept`` header."""


def respond(head: bytes, routes: Mapping[str, Route]) -> bytes:
    """The response, whose connection is to be closed after it."""
    return _Request(head, routes).response()


class _Request(BaseHTTPRequestHandler):
    """One request, in memory. HTTP/1.0: the connection ends with the answer, so nobody holds one for nothing."""

    server_version = "axond"
    sys_version = ""

    def __init__(self, head: bytes, routes: Mapping[str, Route]) -> None:
        self._head = head
        self._routes = routes
        self.rfile = BytesIO(head)
        self.wfile = self._out = BytesIO()
        self.client_address = ("", 0)
        self.command = self.requestline = ""
        self.request_version = self.protocol_version
        self.close_connection = True

    def response(self) -> bytes:
        if len(self._head) > HEAD_BYTES:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            self.handle_one_request()
        if not self._out.tell():  # an empty line in the place of a request
            self.send_error(HTTPStatus.BAD_REQUEST)
        return self._out.getvalue()

    def do_GET(self) -> None:
        try:
            path = urlsplit(self.path).path
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        route = self._routes.get(path)
        if route is None:
            self.send_error(HTTPStatus.NOT_FOUND, f"nothing is here; there are {' '.join(self._routes)}")
        else:
            self._send(route(self.headers.get("Accept", "")))

    do_HEAD = do_GET  # noqa: N815

    def _only_get(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _only_get  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """One line for people; whatever the request said is not in it."""
        status = HTTPStatus(code)
        text = message if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED) else status.phrase
        self._send(Page(f"{text}\n".encode(), TEXT, status))

    def _send(self, page: Page) -> None:
        self.request_version = self.protocol_version  # a request without a version still gets a whole response
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        if page.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        _log.debug(format, *args)
