"""The way to the broker, step by step: name, connection, TLS, login, rights. The first that fails is the last."""

import re
import secrets
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

from agent.doctor.broker_way import Stopwatch, failed, passed, way
from agent.doctor.finding import Finding
from agent.doctor.scene import Scene, asked
from agent.link import FIRST_ERROR, Acked, Birth, Connected, Disconnected, Message
from agent.link import Event as Answer
from agent.mirrors.broker_config import BrokerConfig
from agent.mqtt import PahoLink, default_port
from agent.mqtt_broker import CONNECT_S, Broker
from agent.mqtt_connection import CONNACK_S
from agent.topics import Topics
from agent.uplink_config import UplinkTable, split_address

DEADLINE_S = 45.0
RIGHTS = "give the user these rights in the broker's ACL: pattern write ROOT/%u/up/#, pattern read ROOT/%u/down/#"
ANSWER_S = CONNECT_S + CONNACK_S + 1.0
WATCH_S, FRESH_S = 2.0, 10.0
_BROKEN = re.compile(r"^connection to .* (lost|ended): |closed the connection before it answered")
"""What the uplink says where the broker, or a rival, ended a connection."""
PROBE = "axond-doctor"
"""The stream that the right to publish is tried with, among the live values: no hub stores these."""


def look(scene: Scene) -> Iterator[Finding]:
    """The broker and its fallbacks, and how far the brokers of mirrors can be reached."""
    uplink = scene.settings.uplink
    if uplink is not None:
        yield from _agent(scene)
        yield from _uplink(scene, uplink)
    for name, mirror in scene.settings.mirrors.items():
        settings = mirror.settings
        if not isinstance(settings, BrokerConfig):
            continue
        try:
            broker = settings.broker()
        except (OSError, UnicodeDecodeError):  # the check of the configuration tells
            continue
        yield from way(scene, broker, f"mirrors.{name}.host")


def _uplink(scene: Scene, uplink: UplinkTable) -> Iterator[Finding]:
    places = [("uplink.host", uplink.host, uplink.port)]
    places += [(f"uplink.fallbacks.{i}", *split_address(text)) for i, text in enumerate(uplink.fallbacks)]
    for where, host, port in places:
        broker = Broker(
            host, port or default_port(uplink.ca_file), uplink.username or "", uplink.password_file,
            uplink.ca_file, uplink.cert_file, uplink.key_file,
        )  # fmt: skip
        if (yield from way(scene, broker, where)):
            yield from _mqtt(scene, uplink, broker, where)


def _agent(scene: Scene) -> Iterator[Finding]:
    """What the running agent says of its own connection."""
    state = (scene.status or {}).get("uplink")
    if scene.status is None or not state:
        return
    sentence = state["error"] or _breaks(scene, state, scene.status["up_s"])
    facts: dict[str, object] = {
        "broker": state["broker"], "sent": state["sent"], "delivered": state["delivered"], "sentence": sentence or "",
        "device": scene.settings.device.id,
    }  # fmt: skip
    if sentence and _BROKEN.search(sentence):
        certain = "taken over" in sentence.lower()
        yield Finding(
            "broker.taken_over" if certain else "broker.unsteady",
            "problem" if certain else "warning",
            "another client has logged in as {device} and threw the agent out: {sentence}" if certain
            else "the agent's connection broke: {sentence}; if the steps below go well, another client is called "
            "{device} too, or the network comes and goes",
            "device.id",
            "two devices with one id throw each other out for ever: give each an id, and a user or certificate, of its "
            "own; the log of the broker names the address of both",
            ("sudo journalctl -u mosquitto | grep 'already connected'",), facts,
        )  # fmt: skip
    elif sentence:
        yield Finding(
            "broker.agent_says", "warning", "the running agent says: {sentence}", "uplink",
            "see the steps below; results wait in the outbox meanwhile", (), facts,
        )  # fmt: skip
    elif state["connected"]:
        yield Finding(
            "broker.agent_connected", "ok",
            "the running agent is connected to {broker}: {sent} messages sent, {delivered} results delivered",
            "uplink", facts=facts,
        )  # fmt: skip


def _breaks(scene: Scene, state: dict[str, Any], up_s: float) -> str | None:
    """Why a connection that is fresh, and not the agent's first, breaks again, if it does so while we look."""
    pause, end_s = Event(), time.monotonic() + WATCH_S
    while state["since_s"] < min(FRESH_S, up_s / 2) and time.monotonic() < end_s:
        pause.wait(WATCH_S / 10)
        status, _ = asked(scene.state_dir)
        error: str | None = ((status or {}).get("uplink") or {}).get("error")
        if error:
            return error
    return None


def _mqtt(scene: Scene, uplink: UplinkTable, broker: Broker, where: str) -> Iterator[Finding]:
    facts: dict[str, object] = {"host": broker.host, "port": broker.port}
    state = (scene.status or {}).get("uplink") or {}
    connected = scene.mute is not None or state.get("connected")
    if connected and (broker.username or broker.cert_file):
        # A broker may take the user's name as client id: a second login would throw the running agent out.
        yield Finding(
            "broker.login_not_tried", "ok",
            "login and rights are not tried: the running agent may be logged in as this user", where, facts=facts,
        )  # fmt: skip
        return
    client_id = f"{scene.settings.device.id}-doctor-{secrets.token_hex(2)}"
    link = PahoLink(broker, client_id)
    events: SimpleQueue[Answer] = SimpleQueue()
    try:
        watch = Stopwatch()
        answer = _connect(link, events, Birth())
        facts = {**facts, "ms": watch.ms, "client": client_id, "user": broker.username or "nobody"}
        if not isinstance(answer, Connected):
            sentence = answer.sentence if isinstance(answer, Disconnected) else "it gives no answer"
            yield failed(
                "auth", where, {**facts, "sentence": sentence}, "{sentence}",
                "write the right user and password, and see the broker's log for its reason",
                ("sudo journalctl -u mosquitto -n 20 --no-pager",),
            )  # fmt: skip
            return
        facts = {**facts, "mqtt": answer.mqtt}
        yield passed("auth", where, facts, "the broker lets {user} in, with MQTT {mqtt}")
        yield _rights(link, events, Topics(uplink.topic_root, scene.settings.device.id), where, facts)
    finally:
        link.stop()


def _connect(link: PahoLink, events: "SimpleQueue[Answer]", birth: Birth) -> Answer | None:
    """The broker's answer; None if there is none. The link itself goes back to MQTT 3.1.1 where that is needed."""
    answer: Answer | None = None
    for _ in range(4):
        link.start(events, birth, None)
        try:
            answer = events.get(timeout=ANSWER_S)
        except Empty:
            return None
        if not isinstance(answer, Disconnected) or not _may_be_old(answer.sentence):
            return answer
    return answer


def _may_be_old(sentence: str) -> bool:
    signs = ("does not speak MQTT 5", "closed the connection before it answered", "answers in MQTT 3.1.1")
    return any(sign in sentence for sign in signs)


def _rights(
    link: PahoLink, events: "SimpleQueue[Answer]", topics: Topics, where: str, facts: dict[str, object]
) -> Finding:
    watch = Stopwatch()
    heard, told = topics.ack("+"), topics.live(PROBE)
    answer = _connect(link, events, Birth((heard,)))
    if isinstance(answer, Connected):
        link.send(1, Message(told, b"{}"))
        try:
            while not isinstance(answer, Acked | Disconnected):
                answer = events.get(timeout=ANSWER_S)
        except Empty:
            answer = None
    facts = {**facts, "ms": watch.ms, "heard": heard, "told": told}
    if isinstance(answer, Acked) and answer.code < FIRST_ERROR:
        silent = " (over MQTT 3.1.1 a broker does not say that it threw a message away)" if facts["mqtt"] != "5" else ""
        return passed(
            "acl", where, {**facts, "silent": silent}, "{user} may publish to {told} and subscribe to {heard}{silent}"
        )
    if isinstance(answer, Acked):
        return failed(
            "acl", where, {**facts, "name": answer.name}, "{user} may not publish to {told}: {name}",
            RIGHTS, ("sudo systemctl reload mosquitto",),
        )  # fmt: skip
    sentence = answer.sentence if isinstance(answer, Disconnected) else "the broker did not answer"
    return failed(
        "acl", where, {**facts, "sentence": sentence}, "{sentence} (tried: subscribe to {heard}, publish to {told})",
        RIGHTS, ("sudo systemctl reload mosquitto",),
    )  # fmt: skip
