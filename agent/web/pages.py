"""What each path of the HTTP server tells of the agent."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from agent.snapshot import Parts, health, not_ready, snapshot
from agent.web.metrics import samples
from agent.web.request import TEXT, Page, Route


def routes(parts: Parts) -> Mapping[str, Route]:
    """Path to page."""
    return {
        "/": lambda _: Page(b"/health /ready /metrics /status\n", TEXT),
        "/health": lambda _: _health(parts),
        "/ready": lambda _: _ready(parts),
        "/metrics": lambda accept: _metrics(parts, accept),
        "/status": lambda _: Page(_json(snapshot(parts))),
    }


def _health(parts: Parts) -> Page:
    """Alive, as the watchdog of systemd sees it: whoever gets 503 here should start the agent anew.

    A missing sensor or broker is no reason for that; ``state`` and ``reasons`` tell of it.
    """
    alive = parts.supervisor.critical_alive()
    body = {"alive": alive, **health(parts)}
    return Page(_json(body), status=HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE)


def _ready(parts: Parts) -> Page:
    waits = not_ready(parts)
    body = {"ready": not waits, "waits_for": waits}
    return Page(_json(body), status=HTTPStatus.SERVICE_UNAVAILABLE if waits else HTTPStatus.OK)


def _metrics(parts: Parts, accept: str) -> Page:
    from agent.web.exposition import page

    return page(accept, samples(parts))


def _json(document: object) -> bytes:
    return json.dumps(document).encode() + b"\n"
