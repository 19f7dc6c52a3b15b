"""Keeps every result on disk until it is known to be stored elsewhere.

Rows are numbered when they are committed, so a refused row leaves no hole: it is only counted.
"""

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from threading import Condition, Event, Lock

from agent.ledger import Counts
from agent.outage import Backoff, Outage
from agent.outbox_group import CommitPace, Group, Queued, Taken, build, now
from agent.outbox_leases import Leases
from agent.outbox_store import OutboxLimits, OutboxStore, claimed, file_bytes, set_aside
from agent.record import Depth, Key, Priority, Record
from agent.topics import is_name
from agent.wire import Clock, Row, SystemClock, encode_gap
from agent.worker import rest

log = logging.getLogger(__name__)

GROUP_ROWS = 64
SETTLE_LINGER_S = 1.0
"""Deletions wait this long for new rows to share their transaction: one write to the flash instead of two."""
SETTLE_RECORDS = 256
FLUSH_S = 2.0
_TICK_S = 0.2


class Outbox:
    """A ``Worker``. Only its thread touches the file; the other methods may be called from any thread."""

    name = "outbox"
    critical = True

    def __init__(
        self,
        path: Path,
        *,
        boot: str,
        limits: OutboxLimits | None = None,
        clock: Clock | None = None,
        on_durable: Callable[[Sequence[Queued]], None] | None = None,
    ) -> None:
        self.boot = boot
        """Changes only when a damaged file had to be set aside: the numbers in it must not be used twice."""
        self.opened = Event()
        """Set while ``run`` has the file open."""
        self._path = path
        self._limits = limits or OutboxLimits()
        self._clock = clock or SystemClock()
        self._on_durable = on_durable
        self._lock = Lock()
        self._work = Condition(self._lock)
        self._change = Condition(self._lock)
        self._queue: list[Queued] = []
        self._busy: list[Queued] = []
        self._alarm = False
        self._flushing = False
        self._held: Group | None = None
        self._leases = Leases()
        self._counts: dict[Key, Counts] = {}
        self._next_seq: dict[Key, int] = {}
        self._touched: set[Key] = set()
        self._batches = 0
        self._evicted = 0
        self._refused = 0
        self._refused_told = 0
        self._on_ready: Callable[[], None] | None = None
        self._pace = CommitPace()
        self._settled_since_s = 0.0
        self._retry_at_s = 0.0
        self._backoff = Backoff(0.2, 10.0)
        self._disk = Outage(log, "outbox writes again")
        self._crowd = Outage(log, "outbox keeps up again")
        self._quota = Outage(log, "outbox is empty again")
        self._suspect = False

    @property
    def trouble(self) -> str | None:
        """One sentence while the file cannot be written, else None."""
        return self._disk.sentence

    def put(self, stream: str, payload: Row, *, priority: Priority = Priority.NORMAL) -> None:
        """Takes a result; never waits for the disk, never raises. Nobody writes to ``payload`` afterwards.

        ``t_ns`` in it is the capture time (CLOCK_MONOTONIC). Beyond the bound, or under a name that no topic can carry,
        the row is counted as refused.
        """
        row = Queued(stream, payload, int(priority), self._clock.monotonic_ns())
        with self._lock:
            key = (self.boot, stream)
            counts = self._counts.get(key)
            if counts is None:
                counts = self._counts[key] = Counts()
            counts.produced += 1
            full = len(self._queue) + len(self._busy) >= self._limits.max_queued_rows
            if full or not (key in self._next_seq or is_name(stream)):
                counts.refused += 1
                self._refused += 1
                self._touched.add(key)
                return
            self._next_seq.setdefault(key, 1)
            counts.pending += 1
            self._queue.append(row)
            self._alarm = self._alarm or priority >= Priority.ALARM
            if priority >= Priority.ALARM or len(self._queue) in (1, GROUP_ROWS):
                self._work.notify()

    def lease(self, limit: int, timeout: float) -> list[Record]:
        """Up to ``limit`` records, oldest first, that nobody holds; waits for one up to ``timeout`` seconds."""
        with self._lock:
            self._change.wait_for(lambda: self._leases.ready, timeout)
            records = self._leases.lease(limit)
            if self._leases.wants_more():
                self._work.notify()
        return records

    def leasable(self) -> bool:
        """Whether ``lease`` would return something at once."""
        return bool(self._leases.ready)

    def watch(self, on_ready: Callable[[], None] | None) -> None:
        """``on_ready`` is called on the outbox thread each time there is something new to lease; it must not block."""
        self._on_ready = on_ready

    def settle(self, accepted: Iterable[Record], rejected: Iterable[Record] = ()) -> None:
        """Frees what was accepted and offers what was rejected again; whatever is not leased is ignored."""
        with self._lock:
            if not self._leases.settled:
                self._settled_since_s = time.monotonic()
            for record in self._leases.accept(accepted):
                counts = self._counts[record.key]
                counts.delivered += record.rows
                counts.pending -= record.rows
                self._batches -= 1
                self._touched.add(record.key)
            if len(self._leases.settled) >= SETTLE_RECORDS:
                self._work.notify()
            self._leases.release(rejected)
            self._change.notify_all()

    def give_up(self, record: Record, cause: str) -> None:
        """A leased record that nobody will ever accept becomes a gap record: counted as evicted, offered as such."""
        gap = replace(record, is_gap=True, payload=encode_gap(*record.key, record.seq0, record.seq1, cause))
        with self._lock:
            if self._leases.give_up(gap):
                self._evict({record.key: record.rows})
                self._touched.add(record.key)

    def release_all(self) -> None:
        """Offers everything that is leased again, for a sender that starts anew."""
        with self._lock:
            self._leases.release(list(self._leases.leased.values()))

    def wait_drained(self, timeout: float) -> bool:
        """Waits until nothing is queued or stored; False if that took longer than ``timeout`` seconds."""
        with self._lock:
            return self._change.wait_for(lambda: not (self._queue or self._busy or self._batches), timeout)

    def depth(self) -> Depth:
        size_bytes = file_bytes(self._path)
        with self._lock:
            rows = sum(counts.pending for counts in self._counts.values())
            return Depth(rows, self._batches, size_bytes, self._oldest_age_s(), self._evicted, self._refused)

    def ledger(self) -> dict[Key, Counts]:
        """A copy of the counts of every boot and stream that the file knows."""
        with self._lock:
            return {key: replace(counts) for key, counts in self._counts.items()}

    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        """Opens the file, commits until ``stop``, then commits the rest. ``ConfigError`` if the file cannot be ours."""
        with ExitStack() as claim:
            store = self._open(claim, stop, beat)
            if store is None:
                self._tell_unwritten()
                return
            with closing(store):
                self._flushing = False
                self.opened.set()
                try:
                    while not stop.is_set():
                        beat()
                        self._step(store)
                    self._flush(store, beat)
                except sqlite3.DatabaseError:
                    self._suspect = True
                    raise
                finally:
                    self.opened.clear()
                    with self._lock:
                        self._leases = Leases()

    def _oldest_age_s(self) -> float:
        now_us, now_ns = now(self._clock)
        stored = (*self._leases.leased.values(), *list(self._leases.ready)[:1])
        oldest = min(stored, key=lambda record: record.id, default=None)
        if oldest is not None and oldest.boot != self.boot:
            return max(0.0, (now_us - oldest.created_us) / 1e6)
        if oldest is not None:
            return (now_ns - oldest.created_ns) / 1e9
        waiting = self._busy or self._queue
        return (now_ns - waiting[0].put_ns) / 1e9 if waiting else 0.0

    def _open(self, claim: ExitStack, stop: Event, beat: Callable[[], None]) -> OutboxStore | None:
        """Locks and opens the file, waits for a disk that does not let it, sets a damaged one aside. None: stopped."""
        mine = False
        while not stop.is_set():
            try:
                if not mine:
                    claim.enter_context(claimed(self._path))
                    mine = True
                store = OutboxStore.open(self._path, self._limits.max_bytes, check=self._suspect)
                self._load(store)
                self._suspect = False
                self._disk.over()
                return store
            except (sqlite3.OperationalError, OSError) as error:
                self._disk.failed(f"outbox {self._path} cannot be opened: {error}; results wait in memory")
                rest(self._backoff.next_s(), stop, beat)
            except sqlite3.DatabaseError as error:
                aside = set_aside(self._path)
                self._renumber()
                log.error("outbox %s is damaged (%s): kept as %s, started a new one", self._path, error, aside)
        return None

    def _load(self, store: OutboxStore) -> None:
        """The file knows what was committed; whatever waits in memory is counted on top and numbered anew."""
        stored = store.counts()
        with self._lock:
            self._requeue()
            own = {key: counts for key, counts in self._counts.items() if key[0] == self.boot}
            self._counts = {key: counts for key, (counts, _) in stored.items()}
            self._next_seq = {key: next_seq for key, (_, next_seq) in stored.items() if is_name(key[1])}
            waiting = Counter(row.stream for row in self._queue)
            for key, known in own.items():
                counts = self._counts.setdefault(key, Counts())
                counts.produced += waiting[key[1]] + known.refused - counts.refused
                counts.pending += waiting[key[1]]
                counts.refused = known.refused
                self._touched.add(key)
                if is_name(key[1]):
                    self._next_seq.setdefault(key, 1)
            self._batches = store.batch_count()
            self._leases = Leases()

    def _renumber(self) -> None:
        """Goes on under another boot id: a file that is set aside takes its numbers along."""
        with self._lock:
            self._requeue()
            stem, _, number = self.boot.partition("-")
            self.boot = f"{stem}-{int(number or 1) + 1}"
            self._counts.clear()
            self._touched.clear()
            for row in self._queue:
                counts = self._counts.setdefault((self.boot, row.stream), Counts())
                counts.produced += 1
                counts.pending += 1

    def _requeue(self) -> None:
        self._queue = self._busy + self._queue
        self._busy, self._held = [], None

    def _step(self, store: OutboxStore) -> None:
        """Waits a little for work and does it."""
        with self._lock:
            if not self._wants_refill() and (due_s := self._due_s()) > 0:
                self._work.wait(min(due_s, _TICK_S))
            refill = self._wants_refill()
            taken = self._take() if self._due_s() <= 0 and self._held is None else None
            due = taken is not None or (self._held is not None and self._due_s() <= 0)
        if taken is not None:
            self._held = build(taken, self.boot, self._next_seq, store.next_id, self._clock)
            store.next_id += len(self._held.records)
        if due and self._held is not None:
            self._write(store, self._held)
        if refill and self._held is None:
            self._refill(store)

    def _due_s(self) -> float:
        """Seconds until there is something to commit, or a while if there is nothing."""
        now_s = time.monotonic()
        if self._held is not None:
            return self._retry_at_s - now_s
        if self._flushing:
            return 0.0
        if self._queue:
            hurry = self._alarm or len(self._queue) >= GROUP_ROWS
            return 0.0 if hurry else self._pace.due_s(now_s)
        if len(self._leases.settled) >= SETTLE_RECORDS:
            return 0.0
        if self._leases.settled or self._leases.given_up:
            return self._settled_since_s + SETTLE_LINGER_S - now_s
        return _TICK_S

    def _take(self) -> Taken:
        self._busy, self._queue, self._alarm = self._queue, [], False
        settled, self._leases.settled = self._leases.settled, []
        given_up, self._leases.given_up = self._leases.given_up, []
        keys = self._touched | {(self.boot, row.stream) for row in self._busy}
        self._touched = set()
        return Taken(self._busy, settled, given_up, {key: replace(self._counts[key]) for key in keys})

    def _write(self, store: OutboxStore, group: Group) -> None:
        try:
            crowded = store.is_over_quota(group.records)
            with self._lock:
                if crowded:
                    self._leases.reread()
                keep = self._leases.untouchable() if crowded else set()
            gone = store.commit(group, crowded, keep, lambda: now(self._clock))
        except sqlite3.OperationalError as error:
            self._failed(error)
            return
        self._pace.committed(time.monotonic())
        self._backoff.reset()
        self._disk.over()
        with self._lock:
            self._evict(gone.rows)
            self._batches += len(group.records) - gone.merged
            self._leases.added(group.records)
            self._busy, self._held = [], None
            self._change.notify_all()
        if group.records and self._on_ready is not None:
            self._on_ready()
        self._tell(bool(gone.rows))
        if group.rows and self._on_durable is not None:
            self._on_durable(group.rows)

    def _evict(self, rows_by_key: Mapping[Key, int]) -> None:
        for key, rows in rows_by_key.items():
            self._counts[key].evicted += rows
            self._counts[key].pending -= rows
            self._evicted += rows

    def _tell(self, evicted: bool) -> None:
        if evicted:
            self._quota.failed("outbox is full: the oldest results of the lowest class are given up, see evicted")
        elif not self._batches:
            self._quota.over()
        if self._refused > self._refused_told:
            self._refused_told = self._refused
            self._crowd.failed("results come faster than the outbox can write, or under a bad name: see refused")
        else:
            self._crowd.over()

    def _failed(self, error: sqlite3.OperationalError) -> None:
        self._disk.failed(f"outbox {self._path} cannot be written: {error}; results wait in memory")
        self._retry_at_s = time.monotonic() + self._backoff.next_s()

    def _wants_refill(self) -> bool:
        # While a group is held back, the file still has rows that are settled.
        return self._held is None and self._leases.wants_more() and time.monotonic() >= self._retry_at_s

    def _refill(self, store: OutboxStore) -> None:
        with self._lock:
            after_id, limit = self._leases.next_read()
        try:
            found = store.fetch(after_id, limit)
        except sqlite3.OperationalError as error:
            self._failed(error)
            return
        with self._lock:
            self._leases.read(found, limit)
            self._change.notify_all()
        if found and self._on_ready is not None:
            self._on_ready()

    def _flush(self, store: OutboxStore, beat: Callable[[], None]) -> None:
        """Commits what is left; a disk that refuses is given a few seconds."""
        end_s = time.monotonic() + FLUSH_S
        self._flushing = True
        # Whatever the back-off had come to: room may just have been made, and there is no later.
        self._retry_at_s = 0.0
        self._backoff = Backoff(0.1, 0.3)
        leases = self._leases
        while time.monotonic() < end_s:
            if not (self._queue or self._held or leases.settled or leases.given_up or self._touched):
                return
            beat()
            self._step(store)
        self._tell_unwritten()

    @property
    def unwritten(self) -> int:
        """Results that wait in memory to be committed; after ``run`` has returned they are lost."""
        return len(self._queue) + len(self._busy)

    def _tell_unwritten(self) -> None:
        if self.unwritten:
            log.error("outbox %s: %d results could not be written before the stop", self._path, self.unwritten)
