"""The one composition root: builds the parts of the agent, wires them, starts and stops them in order."""

import errno
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event
from typing import Any

from agent.capture import Capture
from agent.checkpoint import Checkpoint
from agent.clock import ClockKeeper, DeviceClock
from agent.composition import open_bundles, open_locators, outbox_limits, sensor_order
from agent.config import Config
from agent.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, ConfigError
from agent.fusion import FusedPipeline, FusedSensor
from agent.locate import Locator
from agent.log import HUNG, READY, REFUSED, event
from agent.mailbox import Inbox, Mailbox
from agent.memory import give_back
from agent.mirrors.base import Device, Mirror
from agent.mqtt import Broker, PahoLink, default_port
from agent.notify import FEED_S, extend_timeout, feed_interval_s, notify, status
from agent.outbox import Outbox
from agent.outbox_group import Queued
from agent.pipeline import Pipeline, PipelineWorker, ReportPolicy, Sink
from agent.realtime import Scheduling, settle
from agent.record import Priority
from agent.snapshot import Parts, birth, health, metrics, not_ready, snapshot
from agent.status import StatusServer
from agent.supervisor import Supervisor
from agent.uplink import Uplink
from agent.uplink_config import UplinkTable, split_address
from agent.version import agent_version
from agent.web.config import split_listen
from agent.web.server import HttpServer
from agent.worker import Worker
from models.bundle import Bundle
from models.failover import Runner

STOP_CAPTURE_S = 1.0
STOP_PIPELINES_S = 1.0
DRAIN_S = 1.5
STOP_UPLINK_S = 2.6
STOP_OUTBOX_S = 3.0
STOP_STATUS_S = 0.6
"""Together under the 10 s that a stop may take. The outbox has most: what it cannot write is lost."""
OUTBOX_OPEN_S = 10.0

_log = logging.getLogger(__name__)


class App:
    """A whole agent for one configuration."""

    def __init__(self, config: Config) -> None:
        """Reads and verifies the models; opens nothing else. Raises ConfigError."""
        self._config = config
        bundles = open_bundles(config)
        locators = open_locators(config)
        clock = DeviceClock()
        keeper = ClockKeeper(config.device.state_dir, clock)
        self._outbox = Outbox(
            config.device.state_dir / "outbox.db",
            boot=secrets.token_hex(8),
            limits=outbox_limits(config.outbox),
            clock=clock,
            on_durable=self._durable,
        )
        drivers = {name: sensor.make() for name, sensor in config.sensors.items()}
        mailboxes: dict[str, list[Mailbox]] = {name: [] for name in drivers}
        captures = {name: Capture(driver, mailboxes[name]) for name, driver in drivers.items()}
        pipelines: dict[str, PipelineWorker | Locator] = {}
        for name, bundle in bundles.items():
            order = sensor_order(config, name, bundle)
            inbox = Inbox(len(order))
            for sensor, mailbox in zip(order, inbox.mailboxes, strict=True):
                mailboxes[sensor].append(mailbox)
            pipelines[name] = self._pipeline(name, bundle, [captures[sensor] for sensor in order], inbox)
        for name, session in locators.items():
            table = config.pipelines[name]
            mailbox = Mailbox()
            mailboxes[table.sensors[0]].append(mailbox)
            policy = ReportPolicy.of(table.report, table.threshold, None)
            pipelines[name] = Locator(name, session, mailbox, policy, self._sink(name))
        scheduling = Scheduling(config.profile)
        self._supervisor = Supervisor(scheduling.place)
        self._parts = Parts(config, self._outbox, self._supervisor, captures, pipelines, None, time.monotonic_ns())
        self._parts.clock = self._clock = keeper
        if config.uplink:
            self._parts.uplink = self._make_uplink(config.uplink)
        self._parts.mirrors = self._make_mirrors()
        self._parts.scheduling = scheduling
        self._status = StatusServer(config.device.state_dir, lambda: snapshot(self._parts))
        if config.http.listen:
            self._parts.http = HttpServer([split_listen(one) for one in config.http.listen], self._respond)

    def run(self, stop: Event) -> int:
        """Run until ``stop`` is set or the agent cannot go on; returns the exit code."""
        state_dir = self._config.device.state_dir
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                _log.error("%s cannot be made: %s; make room or replace the disk", state_dir, error.strerror)
                return EXIT_FAILED
            raise ConfigError(
                f"{self._config.path}: device.state_dir: cannot make {state_dir} ({error.strerror}); "
                "name a folder that this user may write"
            ) from error
        parts, supervisor = self._parts, self._supervisor
        self._clock.load()
        supervisor.start(self._outbox)
        supervisor.start(self._clock)
        self._wait_open(stop)
        if not supervisor.ended.is_set():
            if parts.uplink:
                supervisor.start(parts.uplink)
            for mirror in parts.mirrors.values():
                supervisor.start(mirror)
            for server in self._servers():
                supervisor.start(server)
            notify("READY=1", status("starting sensors and models"))
            for workers in (parts.pipelines, parts.captures):
                for worker in workers.values():
                    supervisor.start(worker)
            settle()
            _log.info("axond runs as %s, boot %s", self._config.device.id, self._outbox.boot, extra=event(READY))
            self._watch(stop)
        notify("STOPPING=1", status("stopping: results are drained and written"))
        self._stop()
        if supervisor.ended.is_set():
            refused = supervisor.exit_code == EXIT_CONFIG
            _log.error("axond ends: %s", supervisor.exit_reason, extra=event(REFUSED) if refused else None)
            return supervisor.exit_code
        if self._outbox.unwritten:
            _log.error("%d results are lost: the outbox could not be written", self._outbox.unwritten)
            return EXIT_FAILED
        return EXIT_OK

    def _pipeline(self, name: str, bundle: Bundle, captures: list[Capture], inbox: Inbox) -> PipelineWorker:
        table = self._config.pipelines[name]
        policy = ReportPolicy.of(table.report, table.threshold, bundle.manifest.detect)
        runner = Runner(table.backend, isolate=table.isolate, auto=self._config.profile.backends)
        put = self._sink(name)
        if bundle.manifest.inputs is not None:
            sensors = [FusedSensor(c.driver.name, c.driver.info(), partial(_state, c)) for c in captures]
            return FusedPipeline(name, bundle, runner, sensors, inbox, policy, put)
        kept = Checkpoint(self._config.device.state_dir / "streams" / f"{name}.npz", bundle)
        return Pipeline(name, bundle, runner, captures[0].driver.info(), inbox.mailboxes[0], policy, put, kept)

    def _sink(self, name: str) -> Sink:
        table = self._config.pipelines[name]
        usual, alarms = Priority[table.priority.upper()], frozenset(table.alarms)

        def put(payload: dict[str, int | float | str]) -> None:
            priority = Priority.ALARM if payload.get("label") in alarms else usual
            self._outbox.put(name, payload, priority=priority)

        return put

    def _make_uplink(self, table: UplinkTable) -> Uplink:
        brokers = [
            Broker(
                host=host,
                port=port or default_port(table.ca_file),
                username=table.username or "",
                password_file=table.password_file,
                ca_file=table.ca_file,
                cert_file=table.cert_file,
                key_file=table.key_file,
            )
            for host, port in ((table.host, table.port), *map(split_address, table.fallbacks))
        ]
        return Uplink(
            self._outbox,
            PahoLink(brokers[0], client_id=self._config.device.id, fallbacks=brokers[1:]),
            device=self._config.device.id,
            region=self._config.device.region,
            root=table.topic_root,
            ack=table.ack,
            info=lambda: birth(self._parts),
            metrics=lambda: metrics(self._parts),
            agent_version=agent_version(),
            metrics_interval_s=table.metrics_interval_s,
            clock=self._clock,
        )

    def _make_mirrors(self) -> dict[str, Mirror[Any]]:
        device = Device(
            id=self._config.device.id,
            agent_version=agent_version(),
            info=lambda: birth(self._parts),
            metrics=lambda: metrics(self._parts),
            health=lambda: health(self._parts),
        )
        return {name: table.make(device) for name, table in self._config.mirrors.items()}

    def _servers(self) -> list[Worker]:
        """Who answers questions about the agent."""
        return [self._status, *([self._parts.http] if self._parts.http else [])]

    def _respond(self, head: bytes) -> bytes:
        from agent.web.pages import routes
        from agent.web.request import respond

        return respond(head, routes(self._parts))

    def _durable(self, rows: Sequence[Queued]) -> None:
        """On the outbox's thread, after each commit."""
        now_ns = time.monotonic_ns()
        for row in rows:
            self._parts.pipelines[row.stream].latency.durable(row.payload["t_ns"], now_ns)
        if self._parts.uplink:
            self._parts.uplink.show(rows)
        for mirror in self._parts.mirrors.values():
            mirror.offer(rows)

    def _wait_open(self, stop: Event) -> None:
        """A while. Rebuilding a damaged file may take longer: results wait in memory then."""
        start_s = told_s = time.monotonic()
        while (now_s := time.monotonic()) - start_s < OUTBOX_OPEN_S:
            if self._outbox.opened.wait(0.02) or stop.is_set() or self._supervisor.ended.is_set():
                return
            if now_s - told_s >= FEED_S and not self._supervisor.hung():
                notify(extend_timeout(OUTBOX_OPEN_S), status("opening the outbox"))
                told_s = now_s

    def _watch(self, stop: Event) -> None:
        """Until the end: a hung critical worker starves systemd's watchdog, which then starts the agent anew."""
        interval_s, told, shown = feed_interval_s(), False, ""
        loaded = False
        while not stop.wait(interval_s) and not self._supervisor.ended.is_set():
            hung = self._supervisor.hung()
            if hung and not told:
                _log.critical("no sign of life from %s: the watchdog is not fed", ", ".join(hung), extra=event(HUNG))
            elif told and not hung:
                _log.warning("all critical workers show signs of life again: the watchdog is fed")
            told = bool(hung)
            summary = health(self._parts)["summary"]
            lines = ([] if hung else ["WATCHDOG=1"]) + ([status(summary)] if summary != shown else [])
            shown = summary
            notify(*lines)
            if not loaded and not not_ready(self._parts):
                loaded = True
                give_back()

    def _stop(self) -> None:
        """In reverse: no new samples, then no new results, then drain, then say good-bye, then close the file."""
        parts = self._parts
        late = self._stop_some(parts.captures, STOP_CAPTURE_S) + self._stop_some(parts.pipelines, STOP_PIPELINES_S)
        if parts.uplink and parts.uplink.state().connected and not self._outbox.wait_drained(DRAIN_S):
            _log.info("%d results are not acknowledged yet; they stay in the outbox", self._outbox.depth().rows)
        senders: dict[str, Worker] = {**parts.mirrors, **({"uplink": parts.uplink} if parts.uplink else {})}
        late += self._stop_some(senders, STOP_UPLINK_S)
        late += self._supervisor.stop(lambda worker: worker is self._outbox, STOP_OUTBOX_S)
        late += self._supervisor.stop(lambda worker: worker in (*self._servers(), self._clock), STOP_STATUS_S)
        if late:
            _log.warning("stopped without waiting longer for %s", ", ".join(late))

    def _stop_some(self, workers: Mapping[str, Worker], timeout_s: float) -> list[str]:
        chosen: Callable[[Worker], bool] = lambda worker: any(worker is w for w in workers.values())  # noqa: E731
        return self._supervisor.stop(chosen, timeout_s)


def _state(capture: Capture) -> str:
    return capture.info.state
