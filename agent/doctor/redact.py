"""What may leave this device in a support bundle: an allow-list, and nothing that a person has written.

Shown are the keys that this program knows; numbers, truth values and fixed choices of keys that have that type; and
words of this program. Everything else is replaced by what it is and how long it is, with a tag by which equal texts in
one bundle can be told to be equal. The key of the tags is random and kept nowhere: nobody can try guesses on them.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from agent.config import DeviceTable, LogTable, OutboxTable, PipelineTable
from agent.doctor.finding import Finding, Word
from agent.doctor.scene import UNIT
from agent.errors import ConfigError
from agent.mirrors.registry import kinds as mirror_kinds
from agent.mirrors.registry import mirror_class
from agent.uplink_config import UplinkTable
from agent.version import agent_version
from agent.web.config import HttpTable
from drivers.base import Misconfigured
from drivers.registry import driver_class
from drivers.registry import kinds as driver_kinds
from models.registry import ZOO, backends

TABLES: dict[str, type[BaseModel]] = {
    "device": DeviceTable, "outbox": OutboxTable, "uplink": UplinkTable, "log": LogTable, "http": HttpTable,
}  # fmt: skip
NAMED: dict[str, str] = {"sensors": "driver", "pipelines": "", "mirrors": "kind"}
"""Tables of tables, and the key that says which kind each is."""
COUNTS = frozenset((
    "up_s", "rate_hz", "samples", "lost", "dropped", "bad_checksum", "out_of_range", "resync_bytes", "overruns",
    "silent_s", "reopened", "quality", "drift", "incidents", "inferences", "reported", "lost_samples",
    "given_up_samples", "rows", "bytes", "oldest_age_s", "evicted", "refused", "salvaged", "damaged_files", "unproven",
    "written_bytes", "produced", "delivered", "pending", "balanced", "connected", "since_s", "in_flight", "sent",
    "rewinds", "resent", "skipped", "waiting", "p50_ms", "p95_ms", "p99_ms", "overhead_p50_ms", "count", "late",
    "results", "run_ms", "uncertainty_ms", "since_ns", "end_ns", "batches", "connections", "wall_us",
    "last_known_us", "at_least_us", "steps", "last_step_ms", "may_ask", "start_ns", "stop_ns", "pins", "urgent",
    "max_bytes", "keep_free_bytes", "commit_interval_s", "data_cores", "other_cores", "overhead_p99_ms",
    "sensor_p50_ms", "sensor_p99_ms", "wait_p50_ms", "wait_p99_ms", "encode_p50_ms", "encode_p99_ms", "backend_p50_ms",
    "backend_p99_ms", "report_p50_ms", "report_p99_ms",
))  # fmt: skip
"""Of the status and of the outbox's totals: their numbers are shown."""
PARTS = frozenset((
    "device", "boot", "agent", "health", "state", "reasons", "summary", "sensors", "pipelines", "problem", "notes",
    "inputs", "model", "backend", "incident", "latency", "last", "label", "outbox", "ledger", "uplink", "error",
    "broker", "mqtt", "mirrors", "restarts", "input", "missing", "clock", "http", "listen", "profile", "source", "name",
    "board", "reason", "backends", "scheduling", "priorities", "last_known", "at_least",
))  # fmt: skip
STATES = frozenset((
    "ok", "degraded", "failed", "live", "missing", "starting", "waiting", "stopped", "opening", "ended", "parked", "5",
    "3.1.1", "synchronised", "unsynchronised", "wrong", "unavailable", "loading", "jetson", "nuc", "pi", "generic",
))  # fmt: skip
_PORT = re.compile(r"/dev/tty(USB|ACM|S|AMA|THS)\d{1,3}")
_KERNEL = re.compile(r"/sys/(?!.*\.\.)[\w:./-]+|/dev/snd/pcm\w+")


class Redactor:
    """One bundle's rules and tags."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)
        self._words = frozenset(
            (*driver_kinds(), *mirror_kinds(), *backends(), "auto", *(path.name for path in ZOO.iterdir()))
        )
        self._keys = _known_keys()

    def hidden(self, value: object) -> str:
        """What stands in the place of a value."""
        if isinstance(value, str):
            if _PORT.fullmatch(value):
                return value
            return f"<text of {len(value)} characters, #{self.tag(value)}>" if value else ""
        if isinstance(value, Mapping):
            return f"<table of {len(value)} keys>"
        if isinstance(value, list | tuple):
            return f"<list of {len(value)}>"
        return "null" if value is None else "<number>" if isinstance(value, int | float) else "<value>"

    def tag(self, text: str) -> str:
        return blake2b(text.encode("utf-8", "replace"), key=self._key, digest_size=3).hexdigest()

    def finding(self, finding: Finding) -> dict[str, Any]:
        """As in ``--json``, with the facts that are numbers or words of ours alone."""
        facts = {
            key: value if isinstance(value, Word | int | float) else self.hidden(value)
            for key, value in finding.facts.items()
        }
        return {
            "id": finding.id,
            "level": finding.level,
            "where": self.place(finding.where),
            "seen": finding.seen.format_map(facts),
            "remedy": finding.remedy.format_map(facts),
        }

    def place(self, where: str) -> str:
        """A key path with the keys that we know, or a path that the kernel made."""
        if where == UNIT or _KERNEL.fullmatch(where) or _PORT.fullmatch(where):
            return where
        if "/" in where:
            return self.hidden(where)
        return ".".join(self._key_or_tag(part) for part in where.split(".")) if where else ""

    def _key_or_tag(self, part: str) -> str:
        place_in_a_list = part.isdecimal() and len(part) < 3
        return part if part in self._keys or part in self._words or place_in_a_list else f"#{self.tag(part)}"

    def config(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration as it stands in the files."""
        shown: dict[str, Any] = {}
        for key, table in document.items():
            if key in TABLES:
                shown[key] = self._table(table, TABLES[key])
            elif key in NAMED and isinstance(table, dict):
                shown[key] = {
                    f"#{self.tag(name)}": self._table(t, _model(key, t), NAMED[key]) for name, t in table.items()
                }
            else:
                shown[f"#{self.tag(key)}"] = self.hidden(table)
        return shown

    def _table(self, table: object, model: type[BaseModel] | None, kind_key: str = "") -> Any:
        if not isinstance(table, dict):
            return self.hidden(table)
        shown: dict[str, Any] = {}
        for key, value in table.items():
            field = model.model_fields.get(key) if model else None
            if key and key == kind_key:
                shown[key] = self._word(value)
            elif field is None:
                shown[f"#{self.tag(key)}"] = self.hidden(value)
            elif model is PipelineTable and key in ("model", "backend"):
                shown[key] = [self._word(one) for one in value] if isinstance(value, list) else self._word(value)
            else:
                shown[key] = self._typed(value, field.annotation)
        return shown

    def _typed(self, value: object, annotation: object) -> Any:
        """A value of a known key, if its type says that it can be no text of a person."""
        types = set(_types(annotation))
        if isinstance(value, list):
            return [self._typed(one, annotation) for one in value]
        if isinstance(value, dict):
            model = next((t for t in types if isinstance(t, type) and issubclass(t, BaseModel)), None)
            return self._table(value, model)
        fixed = isinstance(value, str) and Word(value) in {t for t in types if isinstance(t, str)}
        numeric = isinstance(value, int | float) and bool(types & {int, float, bool})
        return value if fixed or numeric else self.hidden(value)

    def _word(self, value: object) -> str:
        return value if isinstance(value, str) and value in self._words else self.hidden(value)

    def status(self, value: object, key: str = "") -> Any:
        """The running agent's snapshot, or a part of it under ``key``."""
        if isinstance(value, Mapping):
            return {
                (name if name in COUNTS | PARTS else f"#{self.tag(str(name))}"): self.status(inner, str(name))
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self.status(inner, key) for inner in value]
        if value is None or (isinstance(value, int | float) and key in COUNTS):
            return value
        if isinstance(value, str) and (value in STATES or value in self._words or value == agent_version()):
            return value
        return self.hidden(value)


def _model(table: str, content: object) -> type[BaseModel] | None:
    """The settings of one sensor, pipeline or mirror; None for a kind that there is not."""
    if table == "pipelines":
        return PipelineTable
    kind = content.get(NAMED[table]) if isinstance(content, dict) else None
    try:
        if table == "sensors":
            return driver_class(kind).Config if isinstance(kind, str) else None
        return mirror_class(kind).Config if isinstance(kind, str) else None
    except (Misconfigured, ConfigError):
        return None


def _types(annotation: object) -> Iterable[object]:
    """Everything that an annotation is made of; of a Literal its choices, as words."""
    origin = get_origin(annotation)
    if origin is Literal:
        yield from (Word(choice) if isinstance(choice, str) else type(choice) for choice in get_args(annotation))
    elif origin is Annotated:
        yield from _types(get_args(annotation)[0])
    elif origin in (Union, UnionType, list, tuple):
        for inner in get_args(annotation):
            yield from _types(inner)
    else:
        yield annotation


def _known_keys() -> frozenset[str]:
    """All keys of the configuration that have a name of ours."""
    models: list[type[BaseModel]] = [*TABLES.values(), PipelineTable]
    for table, names in (("sensors", driver_kinds()), ("mirrors", mirror_kinds())):
        models += [model for name in names if (model := _model(table, {NAMED[table]: name})) is not None]
    inner = [t for m in models for f in m.model_fields.values() for t in _types(f.annotation)]
    models += [t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)]
    return frozenset((*TABLES, *NAMED, "driver", "kind", *(name for model in models for name in model.model_fields)))
