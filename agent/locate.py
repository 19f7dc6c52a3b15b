"""The thread of a pipeline that locates: packets of one ultrasonic sensor to positions or echo ranges."""

import time
from collections.abc import Callable
from threading import Event

from agent.latency import Latency
from agent.mailbox import Mailbox
from agent.pipeline import GET_TIMEOUT_S, PipelineState, ReportPolicy, Sink
from models.locate.session import Located, LocateSession

MODEL = "sonar-locate"
"""What stands in the place of a bundle's name."""

COMMON_COLUMNS = {
    "t_us": "us since 1970, capture time of the row",
    "dur_us": "us",
    "label": "tracked, coasting, lost; of waveforms echo, nothing, or the object's class",
    "score": "0..1, share of the distances that fit; of waveforms how sure the label is",
    "lost": "rows missing before this one",
    "model": "",
}


class Locator:
    """Worker around one session and one sensor's mailbox; what a ``Pipeline`` tells of itself it tells too."""

    critical = False

    def __init__(self, name: str, session: LocateSession, mailbox: Mailbox, policy: ReportPolicy, sink: Sink) -> None:
        self.name = f"pipeline:{name}"
        self.model = MODEL
        self.columns = {**COMMON_COLUMNS, **session.columns}
        self.info = PipelineState(backend="scipy")
        self.latency = Latency()
        self.mailbox = mailbox
        self._session = session
        self._policy = policy
        self._sink = sink
        self.trouble: str | None = None
        """A pipeline with a model may be without its backend; numpy and scipy are always there."""

    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        """Until ``stop`` is set and the mailbox is empty: what was captured is also located."""
        self._session.warm_up()
        self.info.state = "live"
        while True:
            beat()
            item = self.mailbox.get(0 if stop.is_set() else GET_TIMEOUT_S)
            if item is None:
                if stop.is_set():
                    return
                continue
            packet, arrived_ns = item
            taken_ns = time.monotonic_ns()
            for located in self._session.push(packet):
                self._report(located, arrived_ns, taken_ns)

    def _report(self, located: Located, arrived_ns: int, taken_ns: int) -> None:
        inference, state = located.inference, self.info
        state.requests += 1
        state.inferences += 1
        state.durations.add(inference.inferred_ns - inference.encoded_ns)
        state.lost_samples += inference.lost
        state.last = inference
        if not self._policy.wants(inference):
            return
        state.reported += 1
        if inference.last_ns <= arrived_ns:  # a file at full speed is ahead of its own time
            times = (inference.last_ns, arrived_ns, taken_ns, inference.encoded_ns, inference.inferred_ns)
            self.latency.inferred(inference.t0_ns, times)
        self._sink(
            {
                "t_ns": inference.t0_ns,
                "dur_us": (inference.end_ns - inference.t0_ns) // 1000,
                "label": inference.label,
                "score": inference.score,
                "lost": inference.lost,
                "model": self.model,
                **located.columns,
            }
        )
