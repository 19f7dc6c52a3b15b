"""One backend after another: when the one in use fails, the next goes on with the same raster and the same state.

As every backend gives the same numbers and leaves the caller's state alone when it fails, nobody downstream can tell
the outputs of a run with failures from those of one without.
"""

import time
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread

from models.base import Backend, BackendUnavailable, BadModel, IoSpec, ModelError, Outputs, Raster, State, Trace
from models.bundle import Bundle
from models.registry import AUTO_ORDER
from models.select import load_kind, order

RETRY_FIRST_S = 1.0
RETRY_LONGEST_S = 60.0
SERVED_FACTOR = 3.0
"""A backend that came back and served that many times its last wait before it failed begins again with the shortest."""


class _Attempt:
    """Loads a backend in a thread of its own: that takes up to seconds, and results must not wait."""

    def __init__(self, rank: int, load: Callable[[], Backend]) -> None:
        self.rank = rank
        self.finished = Event()
        self._load = load
        self._lock = Lock()
        self._abandoned = False
        self._outcome: Backend | ModelError | None = None

    def start(self) -> None:
        # A daemon: an agent that ends waits for nobody's start, and the kernel takes the child processes.
        Thread(target=self._run, name="load a backend", daemon=True).start()

    def _run(self) -> None:
        outcome: Backend | ModelError = BackendUnavailable("an error of its own ended its start; see the log")
        try:
            outcome = self._load()
        except (BackendUnavailable, BadModel) as error:
            outcome = error
        finally:
            with self._lock:
                self._outcome = outcome
                unwanted = self._abandoned
            if unwanted and isinstance(outcome, Backend):
                outcome.close()
            self.finished.set()

    def take(self) -> Backend | ModelError | None:
        """The loaded backend, which is the caller's from here on, or why there is none; None while it still loads."""
        with self._lock:
            return self._outcome

    def abandon(self) -> None:
        """Nobody will take it: whatever is loaded, now or later, is closed."""
        with self._lock:
            self._abandoned = True
            outcome = self._outcome
        if isinstance(outcome, Backend):
            outcome.close()


class _Trouble:
    """A kind that failed in use: when to try it again."""

    def __init__(self) -> None:
        self.wait_s = 0.0
        self.due_s = 0.0
        self.back_s = 0.0
        """When it came back last."""

    def failed_in_use(self, now_s: float) -> None:
        if now_s - self.back_s > SERVED_FACTOR * self.wait_s:
            self.wait_s = 0.0
        self.failed(now_s)

    def failed(self, now_s: float) -> None:
        self.wait_s = min(self.wait_s * 2, RETRY_LONGEST_S) or RETRY_FIRST_S
        self.due_s = now_s + self.wait_s


class Runner(Backend):
    """The first usable backend of a preference, and whoever can take over from it.

    While the backend in use lives in a child process, the next one is kept loaded: a takeover takes no longer than the
    failure. A kind that failed is loaded again in the background, with growing waits, and takes its place back between
    two calls. ``load`` and ``infer`` raise only when no kind of the preference is usable; ``infer`` may then be called
    again with the same arguments, and tries them all anew.
    """

    def __init__(
        self, preference: str | Sequence[str], *, isolate: bool = False, auto: Sequence[str] = AUTO_ORDER
    ) -> None:
        """``auto``: what "auto" in the preference stands for."""
        self._order = order(preference, auto)
        self._isolate = isolate
        self._bundle: Bundle | None = None
        self._backend: Backend | None = None
        self._rank = 0
        self._spare: tuple[int, Backend] | None = None
        self._attempt: _Attempt | None = None
        self._troubles: dict[int, _Trouble] = {}
        self._useless: dict[int, str] = {}
        """Kinds that could not be loaded, and why."""
        self.incidents = 0
        """How often a backend failed in use."""
        self.reason = ""
        """What the last incident was."""

    @property
    def kind(self) -> str:
        """The kind in use: who gave the last answer, after ``infer``."""
        return self._order[self._rank]

    @property
    def degraded(self) -> bool:
        """True while a kind that failed waits for its place."""
        return any(rank < self._rank for rank in self._troubles)

    @property
    def passed_over(self) -> dict[str, str]:
        """Kinds that come before the one in use, and why each is not used."""
        return {self._order[rank]: reason for rank, reason in self._useless.items() if rank < self._rank}

    def load(self, bundle: Bundle) -> IoSpec:
        self.close()
        self._bundle = bundle
        self._load_from(0)
        return IoSpec(bundle.network.features, bundle.network.classes)

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        self._tend()
        for _ in range(len(self._order) + 1):
            if self._backend is None:
                self._load_from(0)
                continue
            try:
                return self._backend.infer(raster, state, trace)
            except BackendUnavailable as error:
                self._failed(str(error))
        raise BackendUnavailable(self.reason)

    def close(self) -> None:
        for backend in (self._backend, self._spare and self._spare[1]):
            if backend is not None:
                backend.close()
        if self._attempt:
            self._attempt.abandon()
        self._backend = self._spare = self._attempt = None
        self._troubles.clear()
        self._useless.clear()

    def _kind_loader(self, rank: int) -> Callable[[], Backend]:
        bundle, kind, isolate = self._bundle, self._order[rank], self._isolate
        if bundle is None:
            raise BackendUnavailable("nothing is loaded")
        return lambda: load_kind(bundle, kind, isolate=isolate)

    def _load_from(self, first: int) -> None:
        """Use the first usable kind from rank ``first`` on, then from the first one on.

        Raises with all reasons: BadModel if none of the kinds can ever run this bundle, else BackendUnavailable.
        """
        last: ModelError = BackendUnavailable("no backend is named")
        may_come_back = False
        for rank in (*range(first, len(self._order)), *range(first)):
            try:
                self._backend = self._kind_loader(rank)()
            except (BackendUnavailable, BadModel) as error:
                self._useless[rank], last = str(error), error
                may_come_back |= isinstance(error, BackendUnavailable)
            else:
                self._rank = rank
                self._useless.pop(rank, None)
                return
        if len(self._order) == 1:
            raise last
        reasons = "; ".join(f"{self._order[rank]}: {reason}" for rank, reason in sorted(self._useless.items()))
        kind = BackendUnavailable if may_come_back else BadModel
        raise kind(f"no backend is usable: {reasons}") from last

    def _failed(self, reason: str) -> None:
        """The backend in use is lost: somebody else takes its place, at once."""
        self.incidents += 1
        self.reason = f"{self.kind} failed: {reason}"
        lost, self._backend = self._backend, None
        if lost is not None:
            _discard(lost)
        self._troubles.setdefault(self._rank, _Trouble()).failed_in_use(time.monotonic())
        if self._spare is None and self._attempt and self._attempt.rank > self._rank:
            self._attempt.finished.wait()
            self._take_attempt()
        if self._spare:
            (self._rank, self._backend), self._spare = self._spare, None
        else:
            self._load_from(self._rank + 1)

    def _tend(self) -> None:
        """Between two calls: take over what was loaded in the background, and ask for what is due. Never waits."""
        if self._attempt:
            self._take_attempt()
        if self._attempt or self._backend is None:
            return
        now_s = time.monotonic()
        wanted = [rank for rank, t in self._troubles.items() if rank < self._rank and t.due_s <= now_s]
        if not wanted and self._spare is None and self._backend.own_process:
            rest = range(self._rank + 1, len(self._order))
            wanted = [
                r
                for r in rest
                if r not in self._useless and (r not in self._troubles or self._troubles[r].due_s <= now_s)
            ]
        if wanted:
            self._attempt = _Attempt(min(wanted), self._kind_loader(min(wanted)))
            self._attempt.start()

    def _take_attempt(self) -> None:
        if self._attempt is None or (outcome := self._attempt.take()) is None:
            return
        rank, self._attempt = self._attempt.rank, None
        if isinstance(outcome, Backend):
            self._useless.pop(rank, None)
            if self._backend is None or rank > self._rank:
                self._set_spare(rank, outcome)
            else:
                self._set_spare(self._rank, self._backend)
                self._rank, self._backend = rank, outcome
                self._troubles[rank].back_s = time.monotonic()
        elif rank in self._troubles and isinstance(outcome, BackendUnavailable):
            self._troubles[rank].failed(time.monotonic())
        else:
            self._useless[rank] = str(outcome)
            self._troubles.pop(rank, None)

    def _set_spare(self, rank: int, backend: Backend) -> None:
        if self._spare:
            _discard(self._spare[1])
        self._spare = rank, backend


def _discard(backend: Backend) -> None:
    """Close it, but wait for nothing: a killed process that held much memory takes its time."""
    Thread(target=backend.close, name="close a backend", daemon=True).start()
