"""The thread of a pipeline with several sensors: results go on while one is silent, noisy, late or unplugged."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event

from agent.mailbox import Inbox
from agent.outage import Outage
from agent.pipeline import GET_TIMEOUT_S, RESULT_COLUMNS, PipelineWorker, ReportPolicy, Sink
from drivers.packet import SensorInfo
from models.base import Backend, Inference
from models.bundle import Bundle
from models.failover import Runner
from models.fused import FusedSession, InputState

FUSED_COLUMNS = {
    **RESULT_COLUMNS,
    "quality": "0..1, mean over the sensors: how much of what they should give this rests on",
    "missing": "sensors that gave nothing to it, or nothing plausible, with commas",
}
GONE = ("missing", "ended")
"""States of a sensor in which nothing comes from it; one that opens is not waited for and not complained of."""


@dataclass(frozen=True, slots=True)
class FusedSensor:
    """One sensor of a fused pipeline, in the order of the model's inputs."""

    name: str
    info: SensorInfo
    state: Callable[[], str]
    """As ``SensorState.state``, now."""


class FusedPipeline(PipelineWorker):
    """Worker around one bundle and the mailboxes of its sensors."""

    columns = FUSED_COLUMNS

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        runner: Runner,
        sensors: Sequence[FusedSensor],
        inbox: Inbox,
        policy: ReportPolicy,
        sink: Sink,
    ) -> None:
        """``inbox`` has a mailbox for each of ``sensors``, in their order."""
        super().__init__(name, bundle, runner, policy, sink)
        self.fusion = Outage(logging.getLogger(__name__), f"pipeline {name} hears all its sensors again")
        self._sensors = tuple(sensors)
        self._names = {part.name: sensor.name for part, sensor in zip(bundle.manifest.parts, sensors, strict=True)}
        self._inbox = inbox

    @property
    def trouble(self) -> str | None:
        """What is wrong now, in one sentence; None while all is well."""
        return super().trouble or self.fusion.sentence

    def _infer(self, backend: Backend, stop: Event, beat: Callable[[], None]) -> None:
        session = FusedSession(self.bundle, backend, [sensor.info for sensor in self._sensors])
        session.warm_up()
        self.info.inputs = {sensor.name: part for sensor, part in zip(self._sensors, session.inputs, strict=True)}
        while True:
            beat()
            item = self._inbox.get(0 if stop.is_set() else _wait_s(session))
            taken_ns = time.monotonic_ns()
            arrived_ns = taken_ns
            if item is not None:
                index, packet, arrived_ns = item
                session.push(index, packet)
            live = [self._gives(i) for i in range(len(self._sensors))]
            for inference in session.tick(taken_ns, live):
                self._report(inference, arrived_ns, taken_ns)
            self.info.quality, self.info.given_up_samples = session.quality, session.given_up_samples
            self._watch_sensors(session.inputs)
            if item is None and stop.is_set():
                return

    def _gives(self, index: int) -> bool:
        """Whether more of this sensor is to come: what it gave before it ended or went may still wait here."""
        return self._sensors[index].state() == "live" or len(self._inbox.mailboxes[index]) > 0

    def _watch_sensors(self, parts: Sequence[InputState]) -> None:
        """Say which sensor is not what it should be, and what results rest on meanwhile."""
        bad = {}
        for sensor, part in zip(self._sensors, parts, strict=True):
            state = sensor.state()
            if state in GONE:
                bad[sensor.name] = state
            elif part.trouble:
                bad[sensor.name] = part.trouble
        if not bad:
            self.fusion.over()
            return
        others = [sensor.name for sensor in self._sensors if sensor.name not in bad]
        rest = f"results rest on {', '.join(others)}" if others else "no sensor is left"
        wrong = ", ".join(f"{name}: {problem}" for name, problem in bad.items())
        self.fusion.failed(f"pipeline {self.name.partition(':')[2]}: {wrong}; {rest}")

    def _payload(self, inference: Inference) -> dict[str, int | float | str]:
        missing = ",".join(self._names[name] for name in inference.missing)
        quality = 0.0 if inference.quality is None else inference.quality
        return {**super()._payload(inference), "quality": quality, "missing": missing}


def _wait_s(session: FusedSession) -> float:
    """Until a window is over though no packet came."""
    due_ns = session.due_ns()
    if due_ns is None:
        return GET_TIMEOUT_S
    return min(GET_TIMEOUT_S, max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
