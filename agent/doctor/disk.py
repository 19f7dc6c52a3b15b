"""The disk: is there room, may it be written, and how worn is the flash?"""

import os
from collections.abc import Iterator
from pathlib import Path

from agent.doctor.finding import Finding
from agent.doctor.scene import Scene, first_line, number, there
from agent.outbox_reader import OutboxUnreadable, totals, wear

INODES_SHARE = 0.02
WORN_STEP = 9
"""Of JEDEC's eleven for the lifetime of an eMMC, 10 % each: 9 is 80 to 90 % used."""
PRE_EOL_URGENT, PRE_EOL_WARNING = 3, 2
SECTOR_BYTES = 512
CYCLES = 1000
"""Times that cheap flash can be written over, and a factor for what its controller writes beyond what it was told."""
AMPLIFICATION = 4
SHORT_YEARS = 5.0
YEAR_DAYS = 365.25


def look(scene: Scene) -> Iterator[Finding]:
    """The file system of the state folder, every eMMC, and what the outbox writes."""
    folder = next(folder for folder in (scene.state_dir, *scene.state_dir.parents) if there(folder))
    yield from _room(scene, folder)
    for device in sorted((scene.root / "sys/block").glob("mmcblk*/device")):
        yield from _emmc(device)
    yield from _writes(scene, folder)


def _room(scene: Scene, folder: Path) -> Iterator[Finding]:
    system = os.statvfs(folder)
    free, keep = system.f_bavail * system.f_frsize, scene.settings.outbox.keep_free_bytes
    facts: dict[str, object] = {"folder": str(folder), "free_mib": free >> 20, "keep_mib": keep >> 20}
    where = "device.state_dir"
    if system.f_flag & os.ST_RDONLY:
        yield Finding(
            "disk.read_only", "problem", "the file system of {folder} can only be read", where,
            "the kernel does that after an error of the disk: look at its log, check the file system, mount it anew",
            ("sudo dmesg | grep -iE 'remount|I/O error' | tail", "findmnt -T {folder}"), facts,
        )  # fmt: skip
    if free < keep:
        yield Finding(
            "disk.full", "problem",
            "{free_mib} MiB are free on the file system of {folder}; below {keep_mib} MiB the outbox stops growing",
            where, "make room, or lower outbox.keep_free_bytes",
            ("df -h {folder}", "sudo journalctl --vacuum-size=50M"),
            facts,
        )  # fmt: skip
    elif free < 2 * keep:
        yield Finding(
            "disk.low", "warning",
            "{free_mib} MiB are free on the file system of {folder}; below {keep_mib} MiB the outbox stops growing",
            where, "make room", ("df -h {folder}", "sudo journalctl --vacuum-size=50M"), facts,
        )  # fmt: skip
    elif not system.f_flag & os.ST_RDONLY:
        yield Finding("disk.room", "ok", "{free_mib} MiB are free on the file system of {folder}", where, facts=facts)
    if system.f_files and system.f_favail < INODES_SHARE * system.f_files:
        yield Finding(
            "disk.inodes", "problem" if not system.f_favail else "warning",
            "the file system of {folder} has room for {inodes} more files only, however small", where,
            "delete what made so many files", ("df -i {folder}",), {**facts, "inodes": system.f_favail},
        )  # fmt: skip


def _emmc(device: Path) -> Iterator[Finding]:
    """``life_time``: used share of both kinds of memory in steps of 10 %; ``pre_eol_info``: spare blocks."""
    steps = [number(part, 16) or 0 for part in first_line(device / "life_time").split()]
    spare = number(first_line(device / "pre_eol_info"), 16) or 0
    if not steps:
        return
    step = max(steps)
    facts: dict[str, object] = {"device": device.parent.name, "percent": min(step * 10, 100), "spare": spare}
    if step > WORN_STEP + 1 or spare >= PRE_EOL_URGENT:
        yield Finding(
            "flash.worn_out", "problem", "the flash {device} is at the end of its life ({percent} % used)", str(device),
            "replace the board or its card now; back up first", ("axond backup axond-backup.tar.gz",), facts,
        )  # fmt: skip
    elif step >= WORN_STEP or spare >= PRE_EOL_WARNING:
        yield Finding(
            "flash.worn", "warning", "the flash {device} has used up to {percent} % of its life", str(device),
            "plan its replacement; results that need not survive a power cut write less often", (), facts,
        )  # fmt: skip
    else:
        yield Finding(
            "flash.fine", "ok", "the flash {device} has used up to {percent} % of its life", str(device), facts=facts
        )


def _writes(scene: Scene, folder: Path) -> Iterator[Finding]:
    """How long flash of this size would last with what the outbox alone writes, as a rule of thumb."""
    status = folder.stat()
    link = scene.root / "sys/dev/block" / f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    if not link.exists():
        return
    device = next((at for at in (link.resolve(), *link.resolve().parents) if (at / "queue").is_dir()), None)
    if device is None or first_line(device / "queue/rotational") == "1":
        return
    try:
        flash = wear(totals(scene.outbox)) if there(scene.outbox) else None
    except (OutboxUnreadable, OSError):  # the check of the outbox tells
        return
    size = (number(first_line(device / "size")) or 0) * SECTOR_BYTES
    if flash is None or not flash.bytes_per_day or not size:
        return
    years = size * CYCLES / AMPLIFICATION / flash.bytes_per_day / YEAR_DAYS
    facts: dict[str, object] = {
        "device": device.name, "gb": size / 1e9, "mib": flash.bytes_per_day / (1 << 20), "years": years,
    }  # fmt: skip
    level = "ok" if years >= SHORT_YEARS else "warning"
    yield Finding(
        "flash.lasts" if level == "ok" else "flash.short_life", "ok" if level == "ok" else "warning",
        "the outbox writes {mib:.0f} MiB a day: flash of {gb:.1f} GB ({device}) stands that for some {years:.0f} years",
        "outbox", "" if level == "ok" else "report less: report = \"on_change\", or a larger card",
        () if level == "ok" else ("axond outbox stats",), facts,
    )  # fmt: skip
