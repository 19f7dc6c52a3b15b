"""InfluxDB's line protocol over HTTP: ``/api/v2/write`` of version 2 and later, ``/write`` of version 1.

A measurement is a stream, its tags are the device and what the configuration adds, its fields the columns. A request
has at most 5 000 lines and follows the last after a second, or when there are as many. An answer that says that the
lines are at fault drops them, counted; anything else is tried again with back-off, with the same bytes, so that a
repeated write changes nothing.
"""

import gzip
import http.client
import json
import logging
import re
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from threading import Event, Thread
from urllib.parse import urlencode, urlsplit

from pydantic import Field, field_validator, model_validator

from agent.credentials import CredentialPath
from agent.mirrors.base import Device, Mirror, MirrorConfig, captured_ns, columns
from agent.mirrors.line_protocol import line, tag_set
from agent.outage import Backoff
from agent.outbox_group import Queued
from agent.refusals import Refusals
from agent.wire import SystemClock, plain
from agent.worker import rest

LINES = 5_000
INTERVAL_S = 1.0
CONNECT_S = 10.0
ANSWER_S = 30.0
"""A full request has about 100 kB; slower than this the same one would be tried for ever."""
LAST_S = 1.2
"""What the last request before a stop may take."""
_AT_FAULT = frozenset({400, 413, 422})
_PARTIAL = re.compile(r"\bdropped=(\d+)")
"""How version 1 says that it stored the other lines."""
_TICK_S = 0.1
_SAID_CHARACTERS = 400

_log = logging.getLogger(__name__)


class InfluxConfig(MirrorConfig):
    """``[mirrors.NAME]`` with ``kind = "influx"``: ``org``, ``bucket`` and ``token_file``, or ``database``."""

    url: str = Field(pattern=r"^https?://[^/?#@\s]+/?$")
    """``http://HOST:PORT`` or ``https://...``."""
    org: str | None = Field(default=None, min_length=1)
    bucket: str | None = Field(default=None, min_length=1)
    token_file: CredentialPath | None = None
    database: str | None = Field(default=None, min_length=1)
    username: str | None = Field(default=None, min_length=1)
    password_file: CredentialPath | None = None
    ca_file: CredentialPath | None = None
    """For ``https``: only this authority is trusted. None: the system's authorities."""
    tags: dict[str, str] = Field(default={})
    """Added to each line, for example where the device stands."""

    @field_validator("url")
    @classmethod
    def _port(cls, url: str) -> str:
        if urlsplit(url).port == 0:  # raises ValueError for what is no port
            raise ValueError("0 is no port")
        return url

    @model_validator(mode="after")
    def _one_version(self) -> "InfluxConfig":
        second = (self.org, self.bucket, self.token_file)
        if self.database is None and None in second:
            raise ValueError("name org, bucket and token_file (InfluxDB 2 and later) or database (version 1)")
        if self.database is not None and any(value is not None for value in second):
            raise ValueError("org, bucket and token_file are for InfluxDB 2 and later, database is for version 1")
        if (self.username is None) != (self.password_file is None) or (self.username and self.database is None):
            raise ValueError("username and password_file go together, and with database")
        if reserved := {"device", "time"} & self.tags.keys():
            raise ValueError(f"tag {sorted(reserved)[0]!r} is taken")
        return self


@dataclass(frozen=True, slots=True)
class _Batch:
    rows: int
    body: bytes


class _Post:
    """One request in a thread of its own, which can be left alone: a name server or a peer may take its time."""

    def __init__(self, cfg: InfluxConfig, body: bytes) -> None:
        self._cfg = cfg
        self._body = body
        self._connection: http.client.HTTPConnection | None = None
        self.status = 0
        """HTTP's; 0 without an answer."""
        self.said = f"no answer in {ANSWER_S:.0f} s"
        self.thread = Thread(target=self._run, name="influx-post", daemon=True)
        self.thread.start()

    def cut(self) -> None:
        """Ends it soon if it has a connection."""
        raw = self._connection.sock if self._connection else None
        if raw is not None:
            try:
                raw.shutdown(socket.SHUT_RDWR)
            except OSError:  # it ended meanwhile
                return

    def _run(self) -> None:
        try:
            path, headers = _target(self._cfg)
            with closing(_connection(self._cfg)) as connection:
                self._connection = connection
                connection.connect()
                connection.sock.settimeout(ANSWER_S)
                connection.request("POST", path, self._body, headers)
                answer = connection.getresponse()
                self.said = _reason(answer.read(4096))
                self.status = answer.status
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.said = _trouble(error)


class Influx(Mirror[InfluxConfig]):
    """Writes batches of lines; a batch that fails is kept and tried again while newer results wait and may drop."""

    Config = InfluxConfig

    def __init__(self, name: str, cfg: InfluxConfig, device: Device) -> None:
        super().__init__(name, cfg, device)
        self._clock = SystemClock()
        self._tags = tag_set({**cfg.tags, "device": device.id})
        self._written = False
        self._under_way = 0
        self._outage = Refusals(_log, f"{self.name} writes again")
        self._backoff = Backoff(0.5, 30.0)

    def connection(self) -> tuple[bool, str | None]:
        return self._written, self._outage.sentence

    def under_way(self) -> int:
        return self._under_way

    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        batch: _Batch | None = None
        due_s = 0.0
        while not stop.is_set():
            beat()
            if batch is None and (time.monotonic() >= due_s or len(self.copies) >= LINES):
                batch = self._next_batch()
                due_s = time.monotonic() + INTERVAL_S
            if batch is None:
                stop.wait(_TICK_S)
            elif self._write(batch, stop, beat):
                batch = None
                self._backoff.reset()
            else:
                rest(self._backoff.next_s(), stop, beat)
        end_s = time.monotonic() + LAST_S
        if (batch is None or self._write(batch, stop, beat)) and (batch := self._next_batch()) is not None:
            post = _Post(self.cfg, batch.body)
            post.thread.join(max(0.0, end_s - time.monotonic()))
            self._judge(post, batch)
        self._written = False

    def _next_batch(self) -> _Batch | None:
        rows = self.copies.take(LINES)
        offset_ns = self._clock.offset_us() * 1000
        lines = [self._line(row, offset_ns) for row in rows]
        written = [text for text in lines if text]
        self.refused += len(rows) - len(written)
        self._under_way = len(written)
        if not written:
            return None
        return _Batch(len(written), gzip.compress("\n".join(written).encode("utf-8", "replace"), 4))

    def _line(self, row: Queued, offset_ns: int) -> str:
        fields = [(name, plain(value)) for name, value in columns(row)]
        return line(row.stream, self._tags, fields, captured_ns(row) + offset_ns)

    def _write(self, batch: _Batch, stop: Event, beat: Callable[[], None]) -> bool:
        """Whether the batch is done with: stored, or refused for good."""
        end_s = time.monotonic() + ANSWER_S
        post = _Post(self.cfg, batch.body)
        while post.thread.is_alive() and (left_s := end_s - time.monotonic()) > 0:
            beat()
            if stop.is_set():
                end_s = min(end_s, time.monotonic() + LAST_S / 2)
            post.thread.join(min(left_s, _TICK_S))
        return self._judge(post, batch)

    def _judge(self, post: _Post, batch: _Batch) -> bool:
        post.cut()
        if 200 <= post.status < 300:
            self.sent += batch.rows
            self._under_way = 0
            self._written = True
            self._outage.taken()
            return True
        what = f"answers {post.status}: {post.said}" if post.status else f"cannot be reached: {post.said}"
        self._written = False
        if post.status not in _AT_FAULT:
            self._outage.failed(f"{self.name}: {self.cfg.url} {what}")
            return False
        self._outage.refused(f"{self.name}: {self.cfg.url} {_PARTIAL.sub('some dropped', what)}")
        dropped = _PARTIAL.search(post.said)
        refused = min(int(dropped[1]), batch.rows) if dropped else batch.rows
        self.refused += refused
        self.sent += batch.rows - refused
        self._under_way = 0
        return True


def _connection(cfg: InfluxConfig) -> http.client.HTTPConnection:
    url = urlsplit(cfg.url)
    host = url.hostname or ""
    if url.scheme == "http":
        return http.client.HTTPConnection(host, url.port or 80, timeout=CONNECT_S)
    context = ssl.create_default_context(cafile=cfg.ca_file)
    return http.client.HTTPSConnection(host, url.port or 443, timeout=CONNECT_S, context=context)


def _target(cfg: InfluxConfig) -> tuple[str, dict[str, str]]:
    """Path and headers. Secrets are read at each request. Raises OSError or ValueError."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip", "User-Agent": "axond"}
    if cfg.database is not None:
        if cfg.password_file is not None:
            login = f"{cfg.username}:{cfg.password_file.read_text('utf-8').strip()}"
            headers["Authorization"] = "Basic " + b64encode(login.encode()).decode()
        return "/write?" + urlencode({"db": cfg.database, "precision": "ns"}), headers
    if cfg.token_file is not None:
        token = cfg.token_file.read_text("utf-8").strip()
        if not (token.isascii() and token.isprintable()):  # the error of http.client would show it
            raise ValueError(f"token_file {cfg.token_file} must hold one line of ASCII")
        headers["Authorization"] = "Token " + token
    query = {"org": cfg.org or "", "bucket": cfg.bucket or "", "precision": "ns"}
    return "/api/v2/write?" + urlencode(query), headers


def _trouble(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _reason(body: bytes) -> str:
    """What an answer says for people: version 1 has ``error``, version 2 ``message``."""
    text = body.decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict):
        text = str(document.get("message") or document.get("error") or text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_SAID_CHARACTERS]


MIRROR = Influx
