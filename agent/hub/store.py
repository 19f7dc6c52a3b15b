"""The hub's writing side: a group of messages becomes one transaction, in which each result is stored exactly once.

The accounts of all streams that a group touches are read and locked first, the group is merged into them in memory, and
everything is written set by set. Hubs that share a database wait for each other's accounts, in the order of names.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, Row, Update, bindparam, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InternalError, SQLAlchemyError
from typing_extensions import Self

from agent.clock import BUILT_US
from agent.clock_epochs import Knowledge
from agent.errors import ConfigError
from agent.hub import clocks, events, schema
from agent.hub.alarms import Report, judge
from agent.hub.books import Account, Alarm, Mark, Stream, StreamLedger, Told, to_text
from agent.hub.database import MovedError, Target, connect, label, why
from agent.hub.forget import forget
from agent.hub.place import Place
from agent.hub.ranges import Coverage, ScatteredError
from agent.hub.reader import HubReader
from agent.hub.retention import DAY_US, Stretch
from agent.wire import Batch, wall_us

TOO_SCATTERED = "batch too far from the rest"
"""How a batch that would make too many ranges is counted; it is not answered, so it comes again."""
METRICS = "metrics"
TRUSTED, SINCE, SEEN = "hub", "since", "seen"
"""Rows of ``trusted``: when the clock was trusted last; the stretch in which one that is not trusted yet goes on."""
RETURN_S = 60.0
"""How long a file that was removed may take to come back, by a restore say, before a new one is made."""
REMOVED = f"the file was removed; a new one is made unless it comes back within {RETURN_S:.0f} s"
READ_STREAMS = 200
"""Accounts that are read at once: databases bound the parameters of a statement."""


@dataclass(slots=True)
class Arrivals:
    """What a group of messages brought, in the order of arrival."""

    batches: list[tuple[str, Batch, bytes]] = field(default_factory=list)
    """Device, batch or gap record, and its payload as it came."""
    documents: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """Device and kind -> boot and JSON text; the last one counts."""
    told: dict[Stream, Told] = field(default_factory=dict)
    """Ledgers out of metrics."""
    reports: dict[str, Report] = field(default_factory=dict)
    """Of each device whose metrics came."""
    events: dict[str, list[str]] = field(default_factory=dict)
    """Device -> JSON texts."""
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Device (empty if even that is unknown) and what was wrong -> messages."""
    asked: set[Stream] = field(default_factory=set)
    """Streams whose mark is wanted although nothing of them was stored."""
    clocks: dict[str, Mapping[str, Knowledge]] = field(default_factory=dict)
    """Device -> what it told of its epochs."""


@dataclass(slots=True)
class Outcome:
    """What became of a group, once it is stored."""

    marks: dict[Stream, Mark] = field(default_factory=dict)
    """Of every stream that a batch was taken for."""
    asked: dict[Stream, Mark] = field(default_factory=dict)
    """Of the streams that were asked for; 0 for one that nothing is known of."""
    scattered: set[tuple[str, str]] = field(default_factory=set)
    """Device and ``TOO_SCATTERED``, where a batch was not taken."""
    first_rejected: set[tuple[str, str]] = field(default_factory=set)
    """Those of ``Arrivals.rejected`` and ``scattered`` that had never happened before."""
    alarms: list[Alarm] = field(default_factory=list)
    """Accounts whose state changed."""


class HubStore(HubReader):
    """Writes, too. ``AWAY`` errors mean busy, full or away: nothing was stored, try again."""

    trusted_us: int | None = None
    """The last time at which a hub trusted its clock; None if none ever has. No time before that is right."""
    stretches: tuple[Stretch, ...] = ()
    """What was known of hubs' clocks when the store was opened."""

    def __init__(self, engine: Engine, target: Target) -> None:
        super().__init__(engine, target)
        self._place = Place(target)
        self._left_s: float | None = None
        """Since when no file is open, because it was removed or replaced."""

    @classmethod
    def open(cls, target: Target) -> Self:
        """Opens or makes the store. ``ConfigError`` if it can never be one; ``AWAY`` and ``OSError`` as they come."""
        store = cls(connect(target, read_only=False), target)
        store._prepare()
        return store

    def _prepare(self) -> None:
        try:
            with self._engine.begin() as connection:
                schema.prepare(connection)
                rows = connection.execute(select(schema.trusted)).all()
        except schema.ForeignSchemaError as error:
            self._engine.dispose()
            raise ConfigError(f"hub store {label(self._target)}: {error}") from error
        except SQLAlchemyError:
            self._engine.dispose()
            raise
        self._take_clock({row.clock: int(row.at_us) for row in rows})
        self._place.hold()
        self._left_s = None

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction. ``MovedError`` if its end finds the file removed or replaced: nobody will ever read it."""
        self._stay()
        with self._engine.begin() as connection:
            yield connection
        self._stay()

    def _stay(self) -> None:
        """Sees that the file that is open is the one at its path; the next call after a ``MovedError`` opens that."""
        vacant = self._place.is_vacant()
        if self._left_s is not None:
            self._open_again(vacant)
        elif vacant or not self._place.is_held():
            if self._place.leave(self._engine):
                self._left_s = time.monotonic()
            raise MovedError(REMOVED if vacant else "the file was replaced by another one")

    def _open_again(self, vacant: bool) -> None:
        if vacant and time.monotonic() < (self._left_s or 0.0) + RETURN_S:
            raise MovedError(REMOVED)
        try:
            self._prepare()
        except (ConfigError, SQLAlchemyError) as error:
            raise MovedError(f"the file that is there now cannot be opened: {why(error)}") from error

    def _take_clock(self, noted: Mapping[str, int]) -> None:
        self.trusted_us = noted.get(TRUSTED)
        trusted = () if self.trusted_us is None else (Stretch.trusted(self.trusted_us),)
        begun = (Stretch(noted[SINCE], noted[SEEN]),) if {SINCE, SEEN} <= noted.keys() else ()
        self.stretches = (*trusted, *begun)

    def store(self, arrivals: Arrivals) -> Outcome:
        """Stores a group in one transaction, durable when this returns; whatever comes again is counted, not stored."""
        try:
            with self._writing() as connection:
                return _Transaction(connection, self._now_us()).store(arrivals)
        except InternalError:
            # A server that became read-only at a fail-over keeps its connections: the next one may find another.
            self._engine.dispose()
            raise

    def expire(self, before_us: int, limit: int) -> int:
        """Removes up to ``limit`` batches received before then and notes it in their accounts; returns how many."""
        with self._writing() as connection:
            batches, streams = schema.batches.c, schema.streams.c
            old = select(batches.id, batches.device, batches.boot, batches.stream, batches.seq0, batches.seq1)
            old = old.where(batches.received_us < before_us).order_by(batches.received_us).limit(limit)
            rows = connection.execute(old.with_for_update(skip_locked=True)).all()
            if not rows:
                return 0
            connection.execute(delete(schema.batches).where(batches.id.in_([row.id for row in rows])))
            gone: Counter[Stream] = Counter()
            for row in rows:
                gone[row.device, row.boot, row.stream] += row.seq1 - row.seq0 + 1
            statement = _of_one_stream(update(schema.streams)).values(expired=streams.expired + bindparam("new"))
            connection.execute(statement, [{**_named(key), "new": gone[key]} for key in sorted(gone)])
        return len(rows)

    def forget(self, before_us: int, limit: int) -> int:
        """Removes up to ``limit`` accounts of ended boots without news since then that have no results any more."""
        with self._writing() as connection:
            return forget(connection, before_us, limit)

    def trust(self, now_us: int) -> None:
        """The clock is right. What was received at times that cannot be, before it was, is taken for received now."""
        batches = schema.batches.c
        odd = or_(batches.received_us > now_us + DAY_US, batches.received_us < BUILT_US)
        with self._writing() as connection:
            _note_clock(connection, {TRUSTED: now_us})
            connection.execute(update(schema.batches).where(odd).values(received_us=now_us))
        self.trusted_us = now_us

    def watch_clock(self, stretch: Stretch) -> None:
        """The clock is on its way to be trusted; the next start goes on from here."""
        with self._writing() as connection:
            _note_clock(connection, {SINCE: stretch.since_us, SEEN: stretch.seen_us})

    def _now_us(self) -> int:
        """Received is nothing before the clock was trusted last: a hub that starts in 1970 has a floor as well."""
        return max(wall_us(), self.trusted_us or 0)

    def accept(self, lines: Iterable[StreamLedger]) -> None:
        """Notes that a person knows what is wrong with these accounts: it fails nothing unless it becomes more."""
        with self._writing() as connection:
            put = insert_for(connection)(schema.accepted)
            new = {name: put.excluded[name] for name in ("sentence", "results", "accepted_us")}
            put = put.on_conflict_do_update(index_elements=["device", "boot", "stream"], set_=new)
            for line in lines:
                if line.difference is not None:
                    key = _columns((line.device, line.boot, line.stream))
                    what = {"sentence": line.difference.sentence, "results": line.difference.results}
                    connection.execute(put, {**key, **what, "accepted_us": wall_us()})


class _Transaction:
    """One group, on a connection with an open transaction."""

    def __init__(self, connection: Connection, now_us: int) -> None:
        self._connection = connection
        self._insert = insert_for(connection)
        self._now_us = now_us

    def store(self, arrivals: Arrivals) -> Outcome:
        outcome = Outcome()
        order = [(device, batch.boot, batch.stream) for device, batch, _ in arrivals.batches]
        touched = {(device, batch.boot, batch.stream) for device, batch, _ in arrivals.batches} | set(arrivals.told)
        accounts = self._accounts(list(dict.fromkeys([*order, *arrivals.told])), arrivals.asked)
        rejected = Counter(arrivals.rejected)
        self._add_batches(arrivals.batches, accounts, rejected, outcome)
        repeated = self._repeated(arrivals.documents)
        for key, told in arrivals.told.items():
            if key[0] not in repeated:
                accounts[key].hear(told)
        self._put_accounts({key: accounts[key] for key in sorted(touched)})
        self._put_documents(arrivals.documents)
        for device in sorted(arrivals.events):
            events.keep(self._connection, self._insert, device, arrivals.events[device], self._now_us)
        for device in sorted(arrivals.clocks):
            clocks.keep(self._connection, self._insert, device, arrivals.clocks[device], self._now_us)
        self._count_rejected(rejected, outcome)
        for device in sorted(arrivals.reports):
            outcome.alarms += judge(self._connection, self._insert, device, arrivals.reports[device], self._now_us)
        outcome.marks = {key: accounts[key].mark() for key in outcome.marks}
        outcome.asked = {key: accounts.get(key, Account()).mark() for key in arrivals.asked}
        return outcome

    def _repeated(self, documents: Mapping[tuple[str, str], tuple[str, str]]) -> set[str]:
        """Devices whose metrics are the last ones to the letter: the message came again, and proves nothing more."""
        heard = {device: document for (device, kind), document in documents.items() if kind == METRICS}
        if not heard:
            return set()
        known = schema.documents.c
        asked = select(known.device, known.boot, known.body).where(known.device.in_(heard), known.kind == METRICS)
        return {row.device for row in self._connection.execute(asked) if heard[row.device] == (row.boot, row.body)}

    def _accounts(self, touched: list[Stream], asked: set[Stream]) -> dict[Stream, Account]:
        """The accounts of all these streams, locked; those of ``touched`` are made, in that order, if they are new."""
        found = self._read({*touched, *asked})
        first_us = self._first_us([key for key in touched if key not in found])
        if first_us:
            new = self._insert(schema.streams).on_conflict_do_nothing()
            rows = [{**_columns(key), "first_us": first_us[key], "last_us": self._now_us} for key in sorted(first_us)]
            self._connection.execute(new, rows)
            found |= self._read(first_us)  # another hub may have made and filled it meanwhile
        return found

    def _first_us(self, fresh: list[Stream]) -> dict[Stream, int]:
        """When the hub first heard of them. Boots are in this order, so it never goes back, whatever the clock does."""
        if not fresh:
            return {}
        streams = schema.streams.c
        latest = select(streams.device, func.max(streams.first_us)).group_by(streams.device)
        latest = latest.where(streams.device.in_({device for device, _, _ in fresh}))
        next_us = {row[0]: int(row[1]) + 1 for row in self._connection.execute(latest)}
        first_us: dict[Stream, int] = {}
        for key in fresh:
            first_us[key] = max(self._now_us, next_us.get(key[0], 0))
            next_us[key[0]] = first_us[key] + 1
        return first_us

    def _read(self, keys: Iterable[Stream]) -> dict[Stream, Account]:
        wanted, streams = sorted(keys), schema.streams.c
        key = (streams.device, streams.boot, streams.stream)
        found = {}
        for begin in range(0, len(wanted), READ_STREAMS):
            some = tuple_(*key).in_(wanted[begin : begin + READ_STREAMS])
            rows = self._connection.execute(select(schema.streams).where(some).order_by(*key).with_for_update())
            found.update({(row.device, row.boot, row.stream): _account(row) for row in rows})
        return found

    def _add_batches(
        self,
        batches: list[tuple[str, Batch, bytes]],
        accounts: Mapping[Stream, Account],
        rejected: Counter[tuple[str, str]],
        outcome: Outcome,
    ) -> None:
        results: list[dict[str, object]] = []
        gaps: list[dict[str, object]] = []
        for device, batch, payload in batches:
            key = (device, batch.boot, batch.stream)
            try:
                parts = accounts[key].add(batch)
            except ScatteredError:
                rejected[device, TOO_SCATTERED] += 1
                outcome.scattered.add((device, TOO_SCATTERED))
                continue
            outcome.marks[key] = Mark(0)
            for seq0, seq1 in parts:
                row = {**_columns(key), "seq0": seq0, "seq1": seq1, "received_us": self._now_us}
                if batch.cause:
                    gaps.append({**row, "cause": batch.cause})
                else:
                    results.append({**row, "payload": payload})
        # The accounts alone keep results apart. Should they be wrong, the ledger says so, and the hub goes on.
        for table, rows in ((schema.batches, results), (schema.gaps, gaps)):
            if rows:
                self._connection.execute(self._insert(table).on_conflict_do_nothing(), rows)

    def _put_accounts(self, accounts: Mapping[Stream, Account]) -> None:
        if not accounts:
            return
        values = [
            {
                **_named(key),
                "upto": account.coverage.upto,
                "ahead": to_text(account.coverage.ahead) if account.coverage.ahead else "",
                "stored": account.stored,
                "missing": account.missing,
                "duplicates": account.duplicates,
                "expected": account.expected,
                "told": to_text(account.told) if account.told else "",
                "last_us": self._now_us,
            }
            for key, account in accounts.items()
        ]
        self._connection.execute(_of_one_stream(update(schema.streams)), values)

    def _put_documents(self, documents: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        if not documents:
            return
        put = self._insert(schema.documents)
        new = {name: put.excluded[name] for name in ("boot", "body", "received_us")}
        rows = [
            {"device": device, "kind": kind, "boot": boot, "body": body, "received_us": self._now_us}
            for (device, kind), (boot, body) in sorted(documents.items())
        ]
        self._connection.execute(put.on_conflict_do_update(index_elements=["device", "kind"], set_=new), rows)

    def _count_rejected(self, rejected: Counter[tuple[str, str]], outcome: Outcome) -> None:
        put, known = self._insert(schema.rejected), schema.rejected.c
        more = {"messages": known.messages + put.excluded.messages, "last_us": put.excluded.last_us}
        put = put.on_conflict_do_update(index_elements=["device", "kind"], set_=more).returning(known.messages)
        for (device, kind), messages in sorted(rejected.items()):
            row = {"device": device, "kind": kind, "messages": messages, "last_us": self._now_us}
            if self._connection.execute(put, row).scalar_one() == messages:
                outcome.first_rejected.add((device, kind))


def _note_clock(connection: Connection, times_us: Mapping[str, int]) -> None:
    put = insert_for(connection)(schema.trusted)
    put = put.on_conflict_do_update(index_elements=["clock"], set_={"at_us": put.excluded.at_us})
    connection.execute(put, [{"clock": name, "at_us": at_us} for name, at_us in sorted(times_us.items())])


def insert_for(connection: Connection) -> Any:
    """What makes an INSERT with ON CONFLICT for this kind of database."""
    return sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert


def _account(row: Row[Any]) -> Account:
    ahead = [(first, last) for first, last in json.loads(row.ahead or "[]")]
    told = json.loads(row.told) if row.told else None
    return Account(Coverage(row.upto, ahead), row.stored, row.missing, row.duplicates, row.expected, told)


def _columns(key: Stream) -> dict[str, object]:
    return {"device": key[0], "boot": key[1], "stream": key[2]}


def _named(key: Stream) -> dict[str, object]:
    return {"of_device": key[0], "of_boot": key[1], "of_stream": key[2]}


def _of_one_stream(statement: Update) -> Update:
    """For many streams, each with the values of ``_named``."""
    streams = schema.streams.c
    return statement.where(
        streams.device == bindparam("of_device"),
        streams.boot == bindparam("of_boot"),
        streams.stream == bindparam("of_stream"),
    )
