"""What is under way on one connection. Bookkeeping only: it is told the time and what happened, and does nothing."""

import math
import random
from dataclasses import dataclass, field

from agent.link import FEW, GATHER_S
from agent.record import Key, Lane, Record
from agent.uplink_watermark import Watermark

WINDOW = 100
"""Messages under way at once; 1000 is half as fast."""
REORDER_S = 1.0
"""Several hubs answer out of order: what is overtaken is taken for lost only after this long."""
REORDER_LONGEST_S = 60.0
BACKLOG_FIRST = 4.0
BACKLOG_SPARED = 10
"""So much of the window is never used by old records, so that a fresh one finds room at once."""
QUICK_S = 0.15
GATHERED_S = 0.35
"""An answer to a few may take so long at rest: the hub waits for more of them, and so does the connection."""
SLOW_S = 0.4
STALL_FIRST_S = 3.0
STALL_LONGEST_S = 300.0


@dataclass(slots=True)
class Sent:
    """A record under way."""

    record: Record
    lane: Lane
    order: int
    """Grows with every sending on a connection."""
    sent_s: float
    tries: int = 1
    overtaken_s: float | None = None
    """When something that was sent later was first known to be stored; later where that says less."""

    def is_lost(self, now_s: float) -> bool:
        patience_s = min(REORDER_S * 2.0 ** min(self.tries, 32) / 2, REORDER_LONGEST_S)
        return self.overtaken_s is not None and now_s - self.overtaken_s >= patience_s


class BacklogWindow:
    """How many old records may be under way: additive increase while answers are quick, halved when they are slow.

    Quick and slow beside the way to the broker and back: over a satellite that alone takes longer than a busy hub.
    """

    def __init__(self, window: int) -> None:
        self._most = max(1.0, window - BACKLOG_SPARED)
        self._size = min(BACKLOG_FIRST, self._most)
        self._cut_s = 0.0
        self._way_s = math.inf
        self._at_least_s = math.inf

    @property
    def size(self) -> int:
        return int(self._size)

    def receipted(self, took_s: float, under_way: int) -> None:
        """The broker has one of ``under_way``: the quickest of them tells how long the way is, however busy the hub."""
        if under_way > FEW:
            self._way_s = min(self._way_s, took_s)
        else:  # it may have come earlier
            self._at_least_s = min(self._at_least_s, max(0.0, took_s - GATHER_S))

    @property
    def _known_way_s(self) -> float:
        return next((way_s for way_s in (self._way_s, self._at_least_s) if way_s < math.inf), 0.0)

    def answered(self, sent: Sent, now_s: float) -> None:
        """An old record is stored. The time of one that was sent twice says nothing about the way."""
        if sent.tries > 1:
            return
        took_s = now_s - sent.sent_s - self._known_way_s
        if took_s < (QUICK_S if self.size > BACKLOG_FIRST else GATHERED_S):
            self._size = min(self._size + 1, self._most)
        elif took_s > SLOW_S and sent.sent_s >= self._cut_s:
            self.cut(now_s)

    def lost(self, sent: Sent, now_s: float) -> None:
        """An old record did not arrive, or its answer did not."""
        if sent.sent_s >= self._cut_s:
            self.cut(now_s)

    def cut(self, now_s: float) -> None:
        """What was sent before ``now_s`` is still judged by the old size, so it cuts no second time."""
        self._size = max(1.0, self._size / 2)
        self._cut_s = now_s


class Stall:
    """When to ask again because nothing is acknowledged: later and later, and not all devices at once."""

    def __init__(self, first_s: float = STALL_FIRST_S) -> None:
        self._first_s = first_s
        self._wait_s = first_s
        self._due_s = 0.0

    def progress(self, now_s: float) -> None:
        """Something was acknowledged, or a connection begins."""
        self._wait_s = self._first_s
        self.departed(now_s)

    def departed(self, now_s: float) -> None:
        """Something is under way after nothing was."""
        self._due_s = now_s + self._wait_s * random.uniform(0.8, 1.2)

    def is_due(self, now_s: float) -> bool:
        return now_s >= self._due_s

    def repeated(self, now_s: float) -> None:
        """It was asked: the next time takes twice as long."""
        self._wait_s = min(self._wait_s * 2, STALL_LONGEST_S)
        self.departed(now_s)


@dataclass(slots=True)
class Flight:
    """One connection's records and messages between sending and answer."""

    window: int = WINDOW
    receive_max: int = WINDOW
    """How many messages the broker takes without having answered; how many wait for the hub is not its business."""
    unanswered: dict[int, tuple[Record | None, float]] = field(default_factory=dict)
    """Link sequence number -> record, if it was one, and time of sending, until the broker's PUBACK."""
    backlog: int = 0
    """Old records under way."""
    backlog_window: BacklogWindow = field(init=False)
    _sent: dict[Key, dict[int, Sent]] = field(default_factory=dict)
    """By key, then by record id in the order of sending."""
    _size: int = 0
    _overtaken: dict[int, Sent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.backlog_window = BacklogWindow(self.window)

    def __len__(self) -> int:
        """Records that are sent and not known to be stored."""
        return self._size

    @property
    def room(self) -> int:
        """How many more records may be sent now."""
        return min(self.window - self._size, self.answer_room)

    @property
    def answer_room(self) -> int:
        """How many more messages the broker takes now."""
        return min(self.window, self.receive_max) - len(self.unanswered)

    @property
    def backlog_room(self) -> int:
        """How many of them may be old ones."""
        return max(0, self.backlog_window.size - self.backlog)

    def add(self, record: Record, lane: Lane, order: int, now_s: float) -> None:
        """``record`` is sent. An outbox that had to rebuild its file hands out again what was under way."""
        self.remove(record)
        self._sent.setdefault(record.key, {})[record.id] = Sent(record, lane, order, now_s)
        self._size += 1
        self.backlog += lane == "backlog"

    def repeat(self, sent: Sent, order: int, now_s: float) -> None:
        """``sent`` is sent again; from now on it is the last one in line."""
        line = self._sent[sent.record.key]
        line[sent.record.id] = line.pop(sent.record.id)
        self._overtaken.pop(sent.record.id, None)
        if sent.lane == "backlog":
            self.backlog_window.lost(sent, now_s)
        sent.order, sent.sent_s, sent.overtaken_s = order, now_s, None
        sent.tries += 1

    def remove(self, record: Record) -> Sent | None:
        """``record`` is no longer under way; None if it was not."""
        line = self._sent.get(record.key, {})
        sent = line.pop(record.id, None)
        if sent is None:
            return None
        if not line:
            del self._sent[record.key]
        self._overtaken.pop(record.id, None)
        self._size -= 1
        self.backlog -= sent.lane == "backlog"
        return sent

    def answered(self, record: Record, now_s: float) -> bool:
        """``record`` is known to be stored; False if it was not under way."""
        sent = self.remove(record)
        if sent is not None and sent.lane == "backlog":
            self.backlog_window.answered(sent, now_s)
        return sent is not None

    def acknowledged(self, key: Key, mark: Watermark, now_s: float) -> list[Record]:
        """Takes out and returns what the hub has now, and remembers what that has overtaken."""
        line = self._sent.get(key)
        if not line:
            return []
        stored = [sent for sent in line.values() if mark.covers(sent.record.seq0, sent.record.seq1)]
        for sent in stored:
            self.answered(sent.record, now_s)
        newest = max((sent.order for sent in stored), default=0)
        for sent in line.values():
            if sent.order > newest:
                break
            if sent.overtaken_s is None or sent.overtaken_s > now_s:
                sent.overtaken_s = now_s
                self._overtaken[sent.record.id] = sent
        self._suspect(newest, now_s)
        return [sent.record for sent in stored]

    def _suspect(self, newest: int, now_s: float) -> None:
        """The last records of a stream, or of an ended boot, are overtaken by those of others only: more patience."""
        for line in self._sent.values():
            head = next(iter(line.values()))
            if head.overtaken_s is None and head.order < newest:
                head.overtaken_s = now_s + STALL_FIRST_S
                self._overtaken[head.record.id] = head

    def lost(self, now_s: float) -> list[Sent]:
        """What was overtaken too long ago, in the order of sending."""
        return sorted((sent for sent in self._overtaken.values() if sent.is_lost(now_s)), key=lambda sent: sent.order)

    def heads(self) -> list[Sent]:
        """The first of each boot and stream that is under way."""
        return [next(iter(line.values())) for line in self._sent.values()]

    def starts_at(self, key: Key, seq0: int) -> bool:
        """Whether a record that begins with ``seq0`` is under way."""
        return any(sent.record.seq0 == seq0 for sent in self._sent.get(key, {}).values())

    def take(self, key: Key) -> list[Record]:
        """Takes out everything of one boot and stream."""
        records = [sent.record for sent in self._sent.get(key, {}).values()]
        for record in records:
            self.remove(record)
        return records

    def take_stream(self, stream: str) -> list[Record]:
        """Takes out everything of one stream, of every boot."""
        return [record for key in list(self._sent) if key[1] == stream for record in self.take(key)]

    def find(self, key: Key, seq0: int, seq1: int) -> Record | None:
        """The record of exactly these numbers, if it is under way."""
        for sent in self._sent.get(key, {}).values():
            if (sent.record.seq0, sent.record.seq1) == (seq0, seq1):
                return sent.record
        return None
