"""The outbox: is the file whole, do the books balance, how much waits and for how long?"""

import os
import sqlite3
from collections.abc import Iterator
from itertools import islice

from agent.clock import BUILT_US
from agent.doctor.finding import Finding, Word
from agent.doctor.scene import Scene, there
from agent.outbox_file import file_bytes, set_asides
from agent.outbox_reader import OutboxUnreadable, problems, records
from agent.wire import iso_time, wall_us

DEADLINE_S = 30.0
"""To read all of a large file once."""
OLD_S = 3600.0
NEARLY_FULL = 0.8
LOOKED_AT = 2000
"""Records, the oldest first."""
AHEAD_US = 86_400_000_000
WHERE = "device.state_dir"


def look(scene: Scene) -> Iterator[Finding]:
    """Read-only, beside an agent or without one."""
    path = scene.outbox
    facts: dict[str, object] = {"path": str(path), "config": str(scene.path)}
    if there(path.parent) and not os.access(path.parent, os.R_OK | os.X_OK):
        yield _unreadable(scene, {**facts, "sentence": f"{path.parent} is not for this user to look into"})
        return
    for aside in set_asides(path) if there(path.parent) else ():
        yield Finding(
            "outbox.set_aside", "warning",
            "{aside} is a damaged outbox that was set aside; what could be read of it was saved", str(aside),
            "look for what damaged it (power cuts, a dying card), then delete it",
            ("axond outbox stats --config {config}", "sudo rm {aside}"), {**facts, "aside": str(aside)},
        )  # fmt: skip
    try:
        if not there(path):
            yield Finding("outbox.none", "ok", "there is no outbox yet: {path}", WHERE, facts=facts)
            return
        whole = _whole(scene, facts)
        yield whole
        if whole.id != "outbox.format":
            yield from _waiting(scene, facts)
    except (OutboxUnreadable, PermissionError) as error:
        if isinstance(error.__cause__, sqlite3.DatabaseError) and not isinstance(
            error.__cause__, sqlite3.OperationalError
        ):
            yield _damaged(facts, [str(error)])
            return
        yield _unreadable(scene, {**facts, "sentence": str(error)})
    yield from _room(scene, facts)


def _whole(scene: Scene, facts: dict[str, object]) -> Finding:
    found = list(islice(problems(scene.outbox), 20))
    if not found:
        return Finding("outbox.whole", "ok", "{path} is whole, and its books balance", WHERE, facts=facts)
    if found[0].startswith("the file has format"):
        return Finding(
            "outbox.format", "note", "{path}: {sentence}", WHERE, facts={**facts, "sentence": found[0]},
            remedy="start the agent once", commands=("sudo systemctl start axond",),
        )  # fmt: skip
    return _damaged(facts, found)


def _unreadable(scene: Scene, facts: dict[str, object]) -> Finding:
    return Finding(
        "outbox.unreadable", "problem" if scene.runner.is_me else "note", "{sentence}", WHERE,
        "look as root", ("sudo axond outbox fsck --config {config}",), facts,
    )  # fmt: skip


def _damaged(facts: dict[str, object], sentences: list[str]) -> Finding:
    return Finding(
        "outbox.damaged", "problem", "{path} is damaged, {count} faults, the first: {sentence}", WHERE,
        "restart the agent: it saves what can be read, sets the file aside, and reports what is lost",
        ("axond outbox fsck --config {config}", "sudo systemctl restart axond"),
        {**facts, "sentence": sentences[0], "count": len(sentences)},
    )  # fmt: skip


def _waiting(scene: Scene, facts: dict[str, object]) -> Iterator[Finding]:
    """How old what waits is, and whether its time stamps can be true."""
    now_us = wall_us()
    stamps_us = [record.created_us for record in islice(records(scene.outbox), LOOKED_AT)]
    if not stamps_us:
        yield Finding("outbox.empty", "ok", "nothing waits to be delivered", WHERE, facts=facts)
        return
    age_s = scene.status["outbox"]["oldest_age_s"] if scene.status else (now_us - stamps_us[0]) / 1e6
    first, last = (Word(iso_time(stamp_us)[:19]) for stamp_us in (min(stamps_us), max(stamps_us)))
    facts = {**facts, "hours": age_s / 3600, "first": first, "last": last}
    if min(stamps_us) < BUILT_US:
        yield Finding(
            "outbox.old_stamps", "note", "results wait that were stored when the clock was not set ({first})", WHERE,
            "nothing is lost; let the network set the clock", ("timedatectl",), facts,
        )  # fmt: skip
    elif scene.settings.uplink is None:
        yield Finding("outbox.kept", "ok", "results stay here: no uplink is configured", WHERE, facts=facts)
    elif age_s > OLD_S:
        yield Finding(
            "outbox.backlog", "warning", "results wait since {hours:.1f} hours to be delivered", "uplink",
            "see the steps to the broker; and does a hub run there, which says that results are stored?",
            ("axond outbox stats --config {config}",), facts,
        )  # fmt: skip
    if max(stamps_us) > now_us + AHEAD_US:
        yield Finding(
            "outbox.future", "warning", "results wait that carry a time in the future ({last})", WHERE,
            "the clock was wrong, or is: compare it", ("timedatectl",), facts,
        )  # fmt: skip


def _room(scene: Scene, facts: dict[str, object]) -> Iterator[Finding]:
    most, used = scene.settings.outbox.max_bytes, file_bytes(scene.outbox)
    facts = {**facts, "percent": round(100 * used / most), "mib": most >> 20}
    if used > NEARLY_FULL * most:
        yield Finding(
            "outbox.nearly_full", "warning", "{path} fills {percent} % of its quota of {mib} MiB", "outbox.max_bytes",
            "deliver the results (see the steps to the broker), or give it more room; when it is full the oldest "
            "results of the lowest class are given up",
            ("axond outbox stats --config {config}",), facts,
        )  # fmt: skip
    counts = scene.status["outbox"] if scene.status else {}
    for key in ("evicted", "refused", "lost"):
        if counts.get(key):
            yield Finding(
                "outbox.given_up", "warning", "since its start the agent counted {count} results as {what}", WHERE,
                "see the ledger; more room or a better connection keeps it from going on",
                ("axond status --config {config}",), {**facts, "count": counts[key], "what": key},
            )  # fmt: skip
