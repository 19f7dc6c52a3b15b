"""Keeps every result on disk until it is known to be stored elsewhere.

Rows are numbered when they are committed, so a refused row leaves no hole: it is only counted.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Condition, Event, Lock

from agent.ledger import Counts
from agent.log import DAMAGED, event
from agent.outbox_books import Books
from agent.outbox_disk import DiskTrouble, RoomTrouble
from agent.outbox_evict import AgeWatch, Eviction, plan
from agent.outbox_file import file_bytes
from agent.outbox_group import NOTHING, Batcher, CommitPace, Group, Queued, Taken, now
from agent.outbox_intake import Intake
from agent.outbox_leases import Leases
from agent.outbox_salvage import Salvager
from agent.outbox_schema import passes
from agent.outbox_store import OutboxLimits, OutboxStore
from agent.record import Depth, Key, Lane, Priority, Record
from agent.wire import Clock, Row, SystemClock, encode_gap

log = logging.getLogger(__name__)

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
        self.opened = Event()
        """Set while ``run`` has the file open."""
        self._path = path
        self._limits = limits or OutboxLimits()
        self._clock = clock or SystemClock()
        self._monotonic_ns = self._clock.monotonic_ns
        self._on_durable = on_durable
        self._lock = Lock()
        self._work = Condition(self._lock)
        self._change = Condition(self._lock)
        self._flushing = False
        self._held: Group | None = None
        self._leases = Leases()
        self._books = Books(boot)
        self._intake = Intake(self._lock, self._work, self._change, self._books, self._limits.max_queued_rows)
        self._loaded = False
        self._damage: str | None = None
        self._rebuilt = False
        """The damage that is known is mended, and the new file is not open yet."""
        self._totals: dict[str, int] = {}
        self._next_id = 1
        self._on_ready: Callable[[], None] | None = None
        self._pace = CommitPace(self._limits.commit_interval_s)
        self._batcher = Batcher(self._limits.group_bytes)
        self._disk = DiskTrouble(path)
        self._room = RoomTrouble()
        self._age = AgeWatch(self._limits.max_age_s)

    @property
    def boot(self) -> str:
        """Changes only when the file was found damaged at the start: the numbers in it must not be used twice."""
        return self._books.boot

    @property
    def trouble(self) -> str | None:
        """One sentence while the file cannot be written, else None."""
        damage = self._damage
        return self._disk.sentence or (damage and f"outbox {self._path} is being rebuilt, it is damaged: {damage}")

    @property
    def unwritten(self) -> int:
        """Results that wait in memory to be committed; after ``run`` has returned they are lost."""
        with self._lock:
            self._intake.admit()
            return len(self._intake)

    def put(self, stream: str, payload: Row, *, priority: Priority = Priority.RESULT) -> None:
        """Takes a result; never waits for the disk, never raises. Nobody writes to ``payload`` afterwards.

        ``t_ns`` in it is the capture time (CLOCK_MONOTONIC). Beyond the bound, or under a name that no topic can carry,
        the row is counted as refused.
        """
        self._intake.put((stream, payload, priority, self._monotonic_ns()))

    def lease(self, limit: int, timeout: float, *, backlog: int | None = None) -> list[Record]:
        """Up to ``limit`` records that nobody holds; waits for one up to ``timeout`` seconds.

        Fresh ones first, then at most ``backlog`` (None: any number) of those that wait from an outage; each lane
        oldest first. Without an outage everything is fresh.
        """
        with self._lock:
            self._change.wait_for(lambda: self._leases.leasable(backlog), timeout)
            records = self._leases.lease(limit, backlog)
            if self._leases.wants_more():
                self._work.notify()
        return records

    def leasable(self, backlog: int | None = None) -> bool:
        """Whether ``lease`` would return something at once."""
        return self._leases.leasable(backlog)

    def lane(self, record: Record) -> Lane:
        """The lane that a leased record came from."""
        return self._leases.lane(record)

    def lowest_held(self, key: Key) -> int | None:
        """The lowest number of a boot and stream that the file still holds and nobody has acknowledged; None: none."""
        with self._lock:
            entry = self._books.entries.get(key)
            return entry.held.lowest if entry else None

    def watch(self, on_ready: Callable[[], None] | None) -> None:
        """``on_ready`` is called on the outbox thread each time there is something new to lease; it must not block."""
        self._on_ready = on_ready

    def settle(self, accepted: Iterable[Record], rejected: Iterable[Record] = ()) -> None:
        """Frees what was accepted and offers what was rejected again; whatever is not leased is ignored."""
        with self._lock:
            self._books.delivered(self._leases.accept(accepted))
            if self._leases.settle_due_s(time.monotonic()) <= 0:
                self._work.notify()
            self._leases.release(rejected)
            self._change.notify_all()

    def give_up(self, record: Record, cause: str) -> None:
        """A leased record that nobody will ever accept becomes a gap record: counted as evicted, offered as such."""
        gap = replace(record, is_gap=True, payload=encode_gap(*record.key, record.seq0, record.seq1, cause))
        with self._lock:
            if self._leases.give_up(gap):
                self._books.give_up({record.key: record.rows})
                self._books.touched.add(record.key)

    def release_all(self) -> None:
        """Offers everything that is leased again, for a sender that starts anew."""
        with self._lock:
            self._leases.release(list(self._leases.leased.values()))

    def shelve(self, streams: Collection[str]) -> None:
        """Offers nothing of these streams from now on, and of all others what there is."""
        with self._lock:
            self._leases.shelve(streams)
            self._work.notify()

    def wait_drained(self, timeout: float) -> bool:
        """Waits until nothing is queued or stored; False if that took longer than ``timeout`` seconds."""
        with self._lock:
            return self._change.wait_for(self._is_drained, timeout)

    def _is_drained(self) -> bool:
        self._intake.admit()
        return not (len(self._intake) or self._books.batches)

    def depth(self) -> Depth:
        size_bytes = file_bytes(self._path)
        with self._lock:
            self._intake.admit()
            waiting = self._intake.busy or self._intake.queue
            oldest = self._leases.oldest or (waiting[0] if waiting else None)
            age_s = 0.0 if oldest is None else self._books.age_s(oldest, self._clock)
            return self._books.depth(size_bytes, age_s, self._totals)

    def ledger(self) -> dict[Key, Counts]:
        """A copy of the counts of every boot and stream that the file knows."""
        with self._lock:
            self._intake.admit()
            return self._books.copy()

    def run(self, stop: Event, beat: Callable[[], None]) -> None:
        """Opens the file, commits until ``stop``, then commits the rest. ``ConfigError`` if the file cannot be ours.

        A damaged file is rebuilt from what can be read.
        """
        with ExitStack() as claim:
            mine = self._disk.claim(claim, stop, beat)
            while mine and (store := self._open(stop, beat)) is not None:
                with closing(store):
                    self._serve(store, stop, beat)
                if self._damage is None:
                    return
        self._tell_unwritten()

    def _serve(self, store: OutboxStore, stop: Event, beat: Callable[[], None]) -> None:
        """Works until ``stop``, or until damage shows."""
        self._flushing = False
        self.opened.set()
        try:
            while not stop.is_set():
                beat()
                self._step(store)
            self._flush(store, beat)
            store.save_totals()
        except sqlite3.DatabaseError as error:
            if not passes(error):
                self._damage = str(error)
        finally:
            self.opened.clear()
            with self._lock:
                self._next_id = store.next_id
                if self._damage is None:
                    self._leases = Leases()

    def _open(self, stop: Event, beat: Callable[[], None]) -> OutboxStore | None:
        """Opens the file, rebuilds a damaged one, waits for a disk that does not let it. None: stopped."""
        while True:
            try:
                if self._damage is not None and not self._rebuilt:
                    self._rebuild(self._damage, beat)
                    self._rebuilt = True
                store = OutboxStore.open(self._path, self._limits, beat)
                try:
                    self._load(store)
                except sqlite3.DatabaseError:
                    store.close()
                    raise
                self._disk.over()
                return store
            except (sqlite3.DatabaseError, OSError) as error:
                hopeful = isinstance(error, OSError) or passes(error)
                if hopeful or self._damage is not None:
                    self._disk.wait(error, stop, beat)
                if not hopeful:
                    self._damage, self._rebuilt = str(error), False
            if stop.is_set():
                return None

    def _load(self, store: OutboxStore) -> None:
        """The file knows what was committed; whatever waits in memory is counted on top and numbered anew."""
        entries, batches = store.entries(), store.batch_count()
        with self._lock:
            if self._held is not None and self._books.are_behind(entries):
                self._intake.busy = []  # the commit that seemed to fail did not
            self._books.load(entries, batches, self._intake.requeue())
            self._held = None
            self._leases = Leases()
            self._totals = dict(store.totals)
            store.next_id = self._next_id = max(self._next_id, store.next_id)
            self._loaded, self._damage, self._rebuilt = True, None, False
            self._change.notify_all()

    def _rebuild(self, damage: str, beat: Callable[[], None]) -> None:
        """Saves what can be saved. Once the file was loaded, memory knows exactly what must be in it."""
        with self._lock:
            records = [*(self._held.replaced if self._held else ()), *self._leases.all()]
            waiting, self._held = self._intake.requeue(), None
            known = self._books.written(waiting) if self._loaded else None
        log.error("outbox %s is damaged: %s", self._path, damage, extra=event(DAMAGED))
        salvager = Salvager(self._path, known, self._totals, self._next_id, lambda: now(self._clock), beat)
        done = salvager.run(records, self._limits.max_bytes)
        log.error("outbox %s is rebuilt: %s", self._path, done.sentence)
        with self._lock:
            if known is None:
                self._books.renumber(self._intake.requeue())
            self._books.evicted += sum(done.lost.values())
            self._leases = Leases()

    def _step(self, store: OutboxStore) -> None:
        """Waits a little for work and does it."""
        with self._lock:
            self._intake.admit()
            if not self._wants_refill() and (due_s := self._due_s()) > 0:
                soon_s = self._pace.due_s(time.monotonic())
                steady = 0 < soon_s < _TICK_S
                self._intake.patient = steady or bool(self._intake.queue)
                self._work.wait(min(due_s, soon_s if steady else _TICK_S))
                self._intake.admit()
            refill = self._wants_refill()
            taken = self._take() if self._due_s() <= 0 and self._held is None else None
            due = taken is not None or (self._held is not None and self._due_s() <= 0)
        if taken is not None:
            self._held, left = self._batcher.build(taken, self.boot, store.next_id, self._clock)
            store.next_id += len(self._held.records)
            with self._lock:
                self._intake.busy, self._intake.queue = self._held.rows, left + self._intake.queue
                self._intake.alarm |= bool(left)  # one of them may be, and the disk is idle
                self._books.refuse(row.stream for row in self._held.refused)
        if due and self._held is not None:
            self._write(store, self._held)
        if refill and self._held is None:
            self._refill(store)

    def _due_s(self) -> float:
        """Seconds until there is something to commit, or a while if there is nothing."""
        now_s = time.monotonic()
        if self._held is not None:
            return self._disk.retry_at_s - now_s
        if self._flushing or self._age.is_due(now_s):
            return 0.0
        if self._intake.queue:
            return 0.0 if self._intake.hurries() else self._pace.due_s(now_s)
        return min(self._leases.settle_due_s(now_s), _TICK_S)

    def _take(self) -> Taken:
        rows = self._intake.take()
        settled, self._leases.settled = self._leases.settled, []
        given_up, self._leases.given_up = self._leases.given_up, []
        return Taken(rows, settled, given_up, self._books.take(row.stream for row in rows))

    def _write(self, store: OutboxStore, group: Group) -> None:
        gone = Eviction()
        try:
            while store.excess_bytes(group.records) > store.slack_bytes and (gone := self._commit(store, NOTHING)).rows:
                group.evicted_before(gone.rows)
            crowded = store.excess_bytes(group.records) > 0
            gone = self._commit(store, group)
        except sqlite3.DatabaseError as error:
            self._disk.failed(error)
            return
        if group.records or group.replaced or group.settled or group.ledger or gone.changed:
            self._pace.committed(time.monotonic())
        self._disk.over()
        self._room.tell(gone, crowded, self._books.refused, self._books.batches)
        if group.rows and self._on_durable is not None:
            self._on_durable(group.rows)
        if group.records and self._on_ready is not None:  # last, when this thread is about to sleep and no rival
            self._on_ready()

    def _commit(self, store: OutboxStore, group: Group) -> Eviction:
        """One transaction, with what it has to give up."""
        crowd = partial(store.excess_bytes, group.records)
        evict = plan(crowd if crowd() > 0 else None, store.most_evicted, self._age, self.boot, self._clock)
        with self._lock:
            offered = self._leases.withdraw() if evict else None
            keep = self._leases.untouchable() | (self._held or NOTHING).settling if evict else set()
        gone = Eviction()
        try:
            gone = store.commit(group, evict, keep, lambda: now(self._clock))
        finally:
            with self._lock:
                if offered is not None:
                    self._leases.offer_again(offered, gone.changed)
        store.measure()
        with self._lock:
            self._books.committed(group.records, gone)
            self._totals = dict(store.totals)
            self._leases.added(group.records)
            if group is not NOTHING:
                self._intake.busy, self._held = [], None
            self._change.notify_all()
        return gone

    def _wants_refill(self) -> bool:
        # While a group is held back, the file still has rows that are settled.
        return self._held is None and self._leases.wants_more() and time.monotonic() >= self._disk.retry_at_s

    def _refill(self, store: OutboxStore) -> None:
        with self._lock:
            after_id, limit = self._leases.next_read()
        try:
            found = store.fetch(after_id, limit)
        except sqlite3.DatabaseError as error:
            self._disk.failed(error)
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
        self._disk.hurry()
        leases = self._leases
        while time.monotonic() < end_s:
            if not (len(self._intake) or self._held or leases.settled or leases.given_up or self._books.touched):
                return
            beat()
            self._step(store)
        self._tell_unwritten()

    def _tell_unwritten(self) -> None:
        if self.unwritten:
            log.error("outbox %s: %d results could not be written before the stop", self._path, self.unwritten)
