"""The ledger in memory: the file's accounts, and what waits to be written. The outbox calls it under its lock."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from agent.ledger import Counts, Entry
from agent.outbox_evict import Eviction
from agent.outbox_group import Queued, now
from agent.record import Depth, Key, Record
from agent.topics import is_name
from agent.wire import Clock, WireError, decode


class Books:
    """``waiting`` counts, by stream, the results of this boot that are taken and not committed."""

    def __init__(self, boot: str) -> None:
        self.boot = boot
        self.entries: dict[Key, Entry] = {}
        """The counts include what waits; ``held`` and ``next_seq`` are of what is committed."""
        self.touched: set[Key] = set()
        """Accounts that changed since they were taken for a commit."""
        self._since_ns: int | None = None
        self._asked: tuple[int, tuple[str, bool]] = (0, ("", False))
        self.batches = 0
        self.evicted = 0
        self.refused = 0

    def admit(self, stream: str, full: bool) -> bool:
        """Counts a result; False if it is refused, because there is no room or no topic can carry its stream's name."""
        key = (self.boot, stream)
        entry = self.entries.get(key)
        known = entry is not None and entry.counts.produced > entry.counts.refused
        allowed = not full and (known or is_name(stream))
        if entry is None:
            entry = self.entries[key] = Entry()
        entry.counts.produced += 1
        if allowed:
            entry.counts.pending += 1
        else:
            entry.counts.refused += 1
            self.refused += 1
            self.touched.add(key)
        return allowed

    def refuse(self, streams: Iterable[str]) -> None:
        """Results that were taken, a stream for each, can be stored in no way."""
        for stream in streams:
            counts = self.entries[self.boot, stream].counts
            counts.pending -= 1
            counts.refused += 1
            self.refused += 1
            self.touched.add((self.boot, stream))

    def take(self, streams: Iterable[str]) -> dict[Key, Entry]:
        """Copies of the accounts that a commit with these streams writes."""
        keys = self.touched | {(self.boot, stream) for stream in streams}
        self.touched = set()
        return {key: self.entries[key].copy() for key in keys}

    def committed(self, records: Iterable[Record], eviction: Eviction) -> None:
        for record in records:
            entry = self.entries[record.key]
            entry.held.add(record.seq0, record.seq1)
            entry.next_seq = max(entry.next_seq, record.seq1 + 1)
            self.batches += 1
        self.batches -= eviction.merged
        self.give_up(eviction.rows)

    def delivered(self, records: Iterable[Record]) -> None:
        for record in records:
            entry = self.entries[record.key]
            entry.counts.delivered += record.rows
            entry.counts.pending -= record.rows
            entry.held.remove(record.seq0, record.seq1)
            self.batches -= 1
            self.touched.add(record.key)

    def give_up(self, rows_by_key: Mapping[Key, int]) -> None:
        for key, rows in rows_by_key.items():
            counts = self.entries[key].counts
            counts.evicted += rows
            counts.pending -= rows
            self.evicted += rows

    def are_behind(self, stored: Mapping[Key, Entry]) -> bool:
        """Whether the file has results of this boot that memory does not know to be there."""
        own = ((key, entry) for key, entry in self.entries.items() if key[0] == self.boot and key in stored)
        return any(stored[key].next_seq > entry.next_seq for key, entry in own)

    def load(self, stored: Mapping[Key, Entry], batches: int, waiting: Counter[str]) -> None:
        """The file knows what was committed; whatever waits in memory is counted on top."""
        own = {key: entry for key, entry in self.entries.items() if key[0] == self.boot}
        self.entries = dict(stored)
        for key, known in own.items():
            entry = self.entries.setdefault(key, Entry())
            entry.counts.produced += waiting[key[1]] + known.counts.refused - entry.counts.refused
            entry.counts.pending += waiting[key[1]]
            entry.counts.refused = known.counts.refused
            self.touched.add(key)
        self.touched &= self.entries.keys()  # the file forgets accounts of long ago
        self.batches = batches

    def written(self, waiting: Counter[str]) -> dict[Key, Entry]:
        """What the file should say: the accounts without what waits."""
        entries = {key: entry.copy() for key, entry in self.entries.items()}
        for stream, rows in waiting.items():
            counts = entries[self.boot, stream].counts
            counts.produced -= rows
            counts.pending -= rows
        return entries

    def renumber(self, waiting: Counter[str]) -> None:
        """Goes on under another boot id, for which nothing is stored yet."""
        stem, _, number = self.boot.partition("-")
        refused = {stream: entry.counts.refused for (boot, stream), entry in self.entries.items() if boot == self.boot}
        self.boot = f"{stem}-{int(number or 1) + 1}"
        self.entries = {}
        for stream in waiting.keys() | refused.keys():
            rows, more = waiting[stream], refused.get(stream, 0)
            self.entries[self.boot, stream] = Entry(Counts(rows + more, pending=rows, refused=more))
        self.touched = set(self.entries)

    def depth(self, size_bytes: int, oldest_age_s: float, totals: Mapping[str, int]) -> Depth:
        rows = sum(entry.counts.pending for entry in self.entries.values())
        names = ("salvaged", "lost", "damaged_files", "unproven", "written_bytes")
        lifetime = [totals.get(name, 0) for name in names]
        return Depth(rows, self.batches, size_bytes, oldest_age_s, self.evicted, self.refused, *lifetime)

    def age_s(self, oldest: Record | Queued, clock: Clock) -> float:
        """By CLOCK_MONOTONIC what is of its epoch; by the wall clock what is older, if it was known then and is now.

        Of the rest nobody knows more than that it is older than this process.
        """
        now_us, now_ns = now(clock)
        if isinstance(oldest, Queued):
            return (now_ns - oldest.put_ns) / 1e9
        if oldest.boot == self.boot:
            return (now_ns - oldest.created_ns) / 1e9
        if self._since_ns is None:
            self._since_ns = now_ns
        epoch, was_known = self._made_in(oldest)
        if epoch and epoch == clock.epoch():
            return max(0.0, (now_ns - oldest.created_ns) / 1e9)
        if was_known and clock.uncertainty_ms() is not None:
            return max(0.0, (now_us - oldest.created_us) / 1e6)
        return (now_ns - self._since_ns) / 1e9

    def _made_in(self, record: Record) -> tuple[str, bool]:
        """The epoch of a record, and whether the wall clock was known then; the last answer is kept."""
        if self._asked[0] != record.id:
            try:
                batch = decode(record.payload)
            except WireError:  # who reads the file finds out
                batch = None
            made_in = ("", False) if batch is None else (batch.epoch, batch.uncertainty_ms is not None)
            self._asked = record.id, made_in
        return self._asked[1]

    def copy(self) -> dict[Key, Counts]:
        return {key: replace(entry.counts) for key, entry in self.entries.items()}
