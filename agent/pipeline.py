"""The thread of one pipeline: packets to windows to spikes to a decision, and the report policy."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Literal, Protocol, TypeVar

from agent.checkpoint import Checkpoint
from agent.latency import Histogram, Latency
from agent.mailbox import Mailbox
from agent.outage import Backoff, Outage
from agent.worker import rest
from drivers.packet import SensorInfo
from models.base import Backend, BackendUnavailable, BadModel, Inference, IoSpec, Outputs, Raster, State, Trace
from models.bundle import Bundle
from models.detect import Detector, DetectSpec
from models.drift import DriftState, watch
from models.failover import Runner
from models.fused import InputState
from models.session import Session
from models.stream import Stream, open_session

GET_TIMEOUT_S = 0.5
LATE_NS = 200_000_000
"""Events that are older than this have arrived: where none comes, the last window is complete by then."""
RETRY_FIRST_S = 1.0
RETRY_LONGEST_S = 60.0

T = TypeVar("T")
ReportKind = Literal["every", "on_change", "threshold", "detect"]


class Sink(Protocol):
    """Where results go: the outbox. Never waits, never raises."""

    def __call__(self, payload: dict[str, int | float | str]) -> None: ...


@dataclass(slots=True)
class ReportPolicy:
    """Which inferences become results."""

    kind: ReportKind
    threshold: float = 0.0
    detector: Detector | None = None
    """With kind ``detect``."""
    _last: str | None = None

    @classmethod
    def of(cls, kind: ReportKind | None, threshold: float | None, detect: DetectSpec | None) -> "ReportPolicy":
        """As configured, for a bundle with the rule ``detect``, which ``kind`` None takes where there is one."""
        if detect is None or kind not in (None, "detect"):
            return cls(kind or "every", threshold or 0.0)
        changed = {} if threshold is None else {"threshold": threshold}
        return cls("detect", detector=Detector(detect.model_copy(update=changed)))

    def wants(self, inference: Inference) -> bool:
        """True if this inference is to be reported; remembers it."""
        if self.kind == "on_change":
            changed = inference.label != self._last
            self._last = inference.label
            return changed
        if self.detector is not None:
            return self.detector.hears(inference.label, inference.score, inference.end_ns)
        return self.kind == "every" or inference.score >= self.threshold


@dataclass(slots=True)
class PipelineState:
    """What is known of a pipeline now. Its thread writes, status readers read single fields."""

    state: str = "loading"
    """``loading``, ``live`` or ``unavailable``."""
    backend: str = ""
    """The kind that gave the latest answer."""
    incidents: int = 0
    """How often a backend failed in use; no result is lost by that, the next one takes over."""
    incident: str = ""
    """What the latest one was."""
    requests: int = 0
    """Windows, or pieces of a stream, that were given to the model."""
    failures: int = 0
    """Tries to load or ask a model that no backend could serve; a window waits for the next try."""
    inferences: int = 0
    spikes: int = 0
    """Input spikes of all of them."""
    durations: Histogram = field(default_factory=Histogram)
    """Of each, from spikes to answer; with the wait for a backend where there was none."""
    reported: int = 0
    lost_samples: int = 0
    """Samples missing inside windows that were inferred all the same."""
    given_up_samples: int = 0
    """Samples of begun windows that a long gap ended before they were whole."""
    last: Inference | None = None
    quality: float | None = None
    """0..1, of a pipeline that fuses sensors: mean over the latest results; None before the first."""
    inputs: dict[str, InputState] = field(default_factory=dict)
    """What is known of each of its sensors, by name."""
    drift: DriftState | None = None
    """Whether what comes is still like the training; None where nothing watches over it."""


RESULT_COLUMNS = {
    "t_us": "us since 1970, capture time of the window's first sample",
    "dur_us": "us",
    "label": "",
    "score": "0..1, softmax",
    "lost": "samples missing inside the window",
    "spikes": "input spikes",
    "model": "name@version",
    "backend": "",
}
"""Column names and units of a result stream, as the birth document says them."""


class _Stopped(Exception):
    """The agent stops while no backend is usable."""


class _Patient(Backend):
    """The runner, but where no backend is usable it waits and tries again, with the same window, until the stop."""

    def __init__(self, pipeline: "PipelineWorker", stop: Event, beat: Callable[[], None]) -> None:
        self._runner = pipeline.runner
        self._state = pipeline.info
        self._outage = pipeline.outage
        self._name = pipeline.name.partition(":")[2]
        self._stop = stop
        self._beat = beat

    def load(self, bundle: Bundle) -> IoSpec:
        return self._until_usable(lambda: self._runner.load(bundle))

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        self._state.requests += 1
        return self._until_usable(lambda: self._runner.infer(raster, state, trace))

    def close(self) -> None:
        self._runner.close()

    def _until_usable(self, act: Callable[[], T]) -> T:
        backoff = Backoff(RETRY_FIRST_S, RETRY_LONGEST_S)
        while True:
            try:
                done = act()
            except BackendUnavailable as error:
                self._state.state = "unavailable"
                self._state.failures += 1
                self._outage.failed(f"pipeline {self._name}: {error}")
            else:
                self._state.state = "live"
                self._outage.over()
                return done
            rest(backoff.next_s(), self._stop, self._beat)
            if self._stop.is_set():
                raise _Stopped


class PipelineWorker(ABC):
    """Worker around one bundle: the backend and the results. Where the inferences come from, its subclasses know."""

    critical = False
    columns = RESULT_COLUMNS

    def __init__(self, name: str, bundle: Bundle, runner: Runner, policy: ReportPolicy, sink: Sink) -> None:
        self.name = f"pipeline:{name}"
        self.bundle = bundle
        self.info = PipelineState()
        self.latency = Latency()
        self.runner = runner
        self._policy = policy
        self._sink = sink
        log = logging.getLogger(__name__)
        self.outage = Outage(log, f"pipeline {name} works again")
        self.fallback = Outage(log, f"pipeline {name} has its backend back")
        self.drifted = Outage(log, f"pipeline {name} gets data as in training again")

    @property
    def model(self) -> str:
        """Which model, as results and status name it."""
        return self.bundle.id

    @property
    def trouble(self) -> str | None:
        """What is wrong now, in one sentence; None while all is well."""
        return self.outage.sentence or self.fallback.sentence or self.drifted.sentence

    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        """Until ``stop`` is set and the mailbox is empty: what was captured is also inferred."""
        backend = _Patient(self, stop, beat)
        try:
            backend.load(self.bundle)
            self._watch_backend()
            self._infer(backend, stop, beat)
        except _Stopped:
            return
        finally:
            backend.close()

    @abstractmethod
    def _infer(self, backend: Backend, stop: Event, beat: Callable[[], None]) -> None:
        """Take packets, ``_report`` inferences, until ``stop`` is set and nothing is left."""

    def _watch_backend(self) -> None:
        """Say which backend answers, and when another one has taken over."""
        runner, info = self.runner, self.info
        info.backend = runner.kind
        if runner.incidents != info.incidents:
            info.incidents, info.incident = runner.incidents, runner.reason
            self.fallback.failed(f"pipeline {self.name.partition(':')[2]}: {runner.reason}; {runner.kind} goes on")
        if not runner.degraded:
            self.fallback.over()

    def _report(self, inference: Inference, arrived_ns: int, taken_ns: int) -> None:
        self._watch_backend()
        state = self.info
        state.inferences += 1
        state.spikes += inference.input_spikes
        state.durations.add(inference.inferred_ns - inference.encoded_ns)
        state.lost_samples += inference.lost
        state.last = inference
        if self._policy.wants(inference):
            state.reported += 1
            times = (inference.last_ns, arrived_ns, taken_ns, inference.encoded_ns, inference.inferred_ns)
            if inference.last_ns <= arrived_ns:  # a file at full speed is ahead of its own time
                self.latency.inferred(inference.t0_ns, times)
            self._sink(self._payload(inference))

    def _payload(self, inference: Inference) -> dict[str, int | float | str]:
        return {
            "t_ns": inference.t0_ns,
            "dur_us": (inference.end_ns - inference.t0_ns) // 1000,
            "label": inference.label,
            "score": inference.score,
            "lost": inference.lost,
            "spikes": inference.input_spikes,
            "model": self.bundle.id,
            "backend": self.info.backend,
        }


class Pipeline(PipelineWorker):
    """Worker around one bundle and one sensor's mailbox."""

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        runner: Runner,
        sensor: SensorInfo,
        mailbox: Mailbox,
        policy: ReportPolicy,
        sink: Sink,
        kept: Checkpoint,
    ) -> None:
        """``kept``: where the state of a stream outlives the program."""
        super().__init__(name, bundle, runner, policy, sink)
        self.mailbox = mailbox
        self._sensor = sensor
        self._kept = kept
        self._drift = watch(bundle)
        self.info.drift = self._drift.state if self._drift else None

    def _infer(self, backend: Backend, stop: Event, beat: Callable[[], None]) -> None:
        begun_ns = time.monotonic_ns()
        session = self._begin(backend)
        session.warm_up()
        if isinstance(session, Session):
            session.advance(begun_ns - LATE_NS)  # a camera that opens before a busy scene: that is an onset
        while True:
            beat()
            item = self.mailbox.get(0 if stop.is_set() else GET_TIMEOUT_S)
            if item is None:
                if isinstance(session, Session):
                    now_ns = time.monotonic_ns()
                    for inference in session.advance(now_ns - LATE_NS):
                        self._report(inference, now_ns, now_ns)
                        self._watch_drift(session, inference)
                if stop.is_set():
                    break
                continue
            packet, arrived_ns = item
            taken_ns = time.monotonic_ns()
            for inference in session.push(packet):
                self._report(inference, arrived_ns, taken_ns)
                self._watch_drift(session, inference)
            self.info.given_up_samples = session.given_up_samples
            if isinstance(session, Stream):
                self._kept.offer(session.checkpoint)
        if isinstance(session, Stream):
            self._kept.finish(session.checkpoint())

    def _watch_drift(self, session: Session | Stream, inference: Inference) -> None:
        """Behind the report, so that no result waits for it."""
        if self._drift is None or not isinstance(session, Session) or not self._drift.see(session.raster, inference):
            return
        if self._drift.state.drifting:
            self.drifted.failed(f"pipeline {self.name.partition(':')[2]}: drift: {self._drift.state.reason}")
        else:
            self.drifted.over()

    def _begin(self, backend: Backend) -> Session | Stream:
        session = open_session(self.bundle, backend, self._sensor)
        saved = self._kept.load() if isinstance(session, Stream) else None
        if isinstance(session, Stream) and saved is not None:
            try:
                session.resume(saved)
            except BadModel as error:
                logging.getLogger(__name__).warning("%s starts from rest: %s", self.name.partition(":")[2], error)
        return session
