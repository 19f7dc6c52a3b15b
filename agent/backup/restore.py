"""Puts a backup back. All of it is verified before anything is changed, and what it replaces is kept aside."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.backup import outbox
from agent.backup.archive import STATE, BackupError, members
from agent.backup.make import CREDENTIALS, OUTBOX, Installation
from agent.backup.replace import Owner, Restored, give, owner_of, replace_config, replace_state, write
from agent.backup.scratch import scratch
from agent.backup.verify import Contents, verify
from agent.clock import FILE as CLOCK
from agent.config import NAME, DeviceTable
from agent.credentials import SOURCE_FOLDER
from agent.errors import ConfigError
from agent.outbox_file import FileInUse, claimed

IDENTITY = "zz-restored-device.toml"
"""The last of the drop-ins, so that what it says holds."""
SPARE_BYTES = 8 << 20
REMEDY = "start the agent once, which saves what can be read, or move the file away"
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """How a backup is to be restored."""

    config: Path
    config_only: bool = False
    new_device: str | None = None
    """Another id: then the results of the backup stay in it, since they are the old device's."""
    state_dir: Path | None = None
    """Says that this place, which the backup names, is meant."""


def restore(path: Path, wish: Wish, told: Told) -> Restored:
    """``told``: gets bytes done, and in all. Raises BackupError; unless its sentence says so, nothing has changed."""
    contents = verify(path)
    config = wish.config.absolute()
    restored: Restored | None = None
    try:
        here = Installation.read(config) if config.exists() else None
    except ConfigError:
        here = None  # broken: that may be why somebody restores
    try:
        with ExitStack() as stack:
            config.parent.mkdir(parents=True, exist_ok=True)
            staged = stack.enter_context(scratch(config.parent))
            device = _stage_config(contents, staged, config, here, wish)
            restored = Restored(device.id, device.state_dir)
            _check_place(contents, restored.state_dir, here, wish)
            _stage_secrets(contents, staged, config, restored)
            owner = owner_of(restored.state_dir)
            stack.enter_context(_held(restored.state_dir, owner))
            _finish_rebuild(restored)
            _check_results(restored, here)
            state = stack.enter_context(scratch(restored.state_dir))
            if not wish.config_only:
                _stage_state(contents, state, restored, here, wish, told)
            replace_config(staged, config, owner, restored)
            replace_state(state, owner, restored)
    except OSError as error:
        where = error.filename or config
        changed = restored is not None and (restored.files or restored.aside)
        rest = "what was replaced until then is kept beside it" if changed else "nothing has changed"
        raise BackupError(f"{where}: {error.strerror or error}; {rest}") from error
    _note(contents, restored, wish)
    return restored


def _stage_config(contents: Contents, staged: Path, config: Path, here: Installation | None, wish: Wish) -> DeviceTable:
    """The configuration's files in ``staged``, named as they will be; what device it makes of this machine."""
    old = contents.head.device
    named = here.named if here else None
    if wish.new_device is None and named not in (None, old):
        raise BackupError(
            f"this is device {named!r} by {config}, and the backup is of {old!r}: to take over configuration and "
            f"models, but not the name and the results, add --as-new-device {named}"
        )
    if wish.new_device is not None and (wish.new_device == old or not re.fullmatch(NAME, wish.new_device)):
        raise BackupError(
            f"--as-new-device {wish.new_device}: give another id than that of the backup, of 1 to 63 of a-z, 0-9, '_' "
            "and '-', a letter or digit first"
        )
    for name, content in contents.config.items():
        if name.startswith("axond.toml"):
            target = staged / (config.name + name.removeprefix("axond.toml"))
            write(target, content, contents.modes[f"config/{name}"])
    main = staged / config.name
    wanted = wish.new_device or old
    try:
        if (found := Installation.read(main)).device.id != wanted:
            drop_in = main.with_name(main.name + ".d") / IDENTITY
            write(drop_in, f'# Written by axond restore.\n[device]\nid = "{wanted}"\n'.encode(), 0o644)
            found = Installation.read(main)
    except ConfigError as error:
        raise BackupError(f"the configuration in the backup is wrong: {error}") from error
    if found.device.id != wanted:
        raise BackupError(f"the configuration in the backup has a drop-in behind {IDENTITY} that names the device")
    return found.device


def _stage_secrets(contents: Contents, staged: Path, config: Path, restored: Restored) -> None:
    """Passwords and keys in ``staged``. A stranger's file must not say which other files it brings.

    All below ``credentials``, and where nothing but axond's files are, what the configuration names.
    """
    ours = config.parent == SOURCE_FOLDER.parent
    named = Installation.read(staged / config.name).secrets() if ours else []
    for name, content in contents.config.items():
        kind, _, inside = name.partition("/")
        if kind != "secrets":
            continue
        if inside.startswith(f"{CREDENTIALS}/") or (
            config.parent / inside in named and not inside.startswith(config.name)
        ):
            write(staged / name, content, 0o600)
        else:
            restored.notes.append(
                f"{config.parent / inside} was left in the backup, since it is not below {CREDENTIALS}: "
                f"tar --zstd -xf {contents.path} config/{name}"
            )


def _check_place(contents: Contents, state_dir: Path, here: Installation | None, wish: Wish) -> None:
    """What a stranger's file says is no reason to write anywhere: BackupError for a place that is not expected."""
    expected = [DeviceTable().state_dir, wish.state_dir, here.device.state_dir if here else None]
    if state_dir.absolute() not in [path.absolute() for path in expected if path]:
        raise BackupError(
            f"the configuration in {contents.path} keeps its state in {state_dir}; if that is right, add "
            f"--state-dir {state_dir}"
        )


def _finish_rebuild(restored: Restored) -> None:
    """Else the next start of the agent would put the rebuilt file in the place of what is restored now."""
    db = restored.state_dir / OUTBOX
    if outbox.is_half_rebuilt(db):
        if (damaged := outbox.finish_rebuild(db)) is not None:
            restored.aside.append(str(damaged))
        restored.notes.append(f"{db} had been damaged, and its rebuilding was interrupted: that was finished first")


def _check_results(restored: Restored, here: Installation | None) -> None:
    """BackupError if results wait here that would be sent under another device's name."""
    db = restored.state_dir / OUTBOX
    if here is None or here.device.id == restored.device or not db.exists():
        return
    if waiting := outbox.waiting(db):
        raise BackupError(
            f"{db} holds {waiting} results of device {here.device.id!r}, which would be sent as those of "
            f"{restored.device!r}: deliver them first, or move the file away"
        )


@contextmanager
def _held(state_dir: Path, owner: Owner) -> Iterator[None]:
    """Keeps agents off. BackupError while one runs."""
    new = not state_dir.exists()
    try:
        with claimed(state_dir / OUTBOX):
            for path in (*([state_dir] if new else ()), state_dir / f"{OUTBOX}.lock"):
                give(path, owner)
            yield
    except FileInUse as error:
        raise BackupError(f"an agent runs on {state_dir}: stop it first (systemctl stop axond)") from error
    except ConfigError as error:
        raise BackupError(str(error)) from error


def _stage_state(
    contents: Contents, stage: Path, restored: Restored, here: Installation | None, wish: Wish, told: Told
) -> None:
    """Files in ``stage`` as they will be below the state_dir. Raises BackupError."""
    state_dir = restored.state_dir
    disk = os.statvfs(state_dir)
    db = state_dir / OUTBOX
    needed = contents.state_bytes + SPARE_BYTES + 2 * (db.stat().st_size if db.exists() else 0)
    if disk.f_bavail * disk.f_frsize < needed:
        raise BackupError(f"{state_dir} has too little room: {needed >> 20} MiB are needed")
    done = 0
    for member in members(contents.path):
        if not member.name.startswith(STATE):
            continue
        name = member.name.removeprefix(STATE)
        if name == OUTBOX and wish.new_device is not None:
            continue
        if name == CLOCK and (state_dir / name).exists():  # knows more of this machine's clock
            continue
        target = stage / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for chunk in member.chunks:
                file.write(chunk)
                done += len(chunk)
                told(done, contents.state_bytes)
            file.flush()
            os.fsync(file.fileno())
        if member.sha256 != contents.sums.get(member.name):
            raise BackupError(f"{contents.path} changed while it was read")
    if (stage / OUTBOX).exists():
        _join(stage / OUTBOX, db, restored)


def _join(staged: Path, db: Path, restored: Restored) -> None:
    """Checks the outbox of the backup, and joins it with one that is here: what that one has is newer."""
    outbox.bring_up_to_date(staged)
    outbox.check(staged, "the outbox in the backup is damaged", "take another backup, or restore with --config-only")
    if not db.exists():
        restored.results = outbox.waiting(staged)
        outbox.fold(staged)
        return
    joined = staged.with_name("joined.db")
    outbox.copy(db, joined, lambda _: None, REMEDY, alone=True)
    outbox.bring_up_to_date(joined)
    restored.results = outbox.add_missing(joined, staged)
    if not restored.results:
        for spare in (staged, joined):
            outbox.fold(spare)
            spare.unlink()
        restored.notes.append(f"{db} is newer than the backup and lacks nothing of it: it stays")
        return
    outbox.check(joined, "the joined outbox is not right", REMEDY)
    for file in (joined, staged, db):  # a WAL of the old file must not meet the new one
        outbox.fold(file)
    joined.replace(staged)
    restored.notes.append(
        f"{db} is newer than the backup: {restored.results} results that only the backup has were added to it"
    )


def _note(contents: Contents, restored: Restored, wish: Wish) -> None:
    head = contents.head
    kept = head.results or 0
    if wish.new_device is not None:
        restored.notes.append(
            f"the {kept} results in the backup are those of {head.device!r} and stay in it; a login that is bound to "
            "that name (uplink.username, certificates) has to be replaced"
        )
    elif wish.config_only:
        restored.notes.append("the configuration only: models, and results in the backup, stay in it")
    else:
        restored.notes.append(
            f"this is device {restored.device!r} now: another machine of that name must not run any more"
        )
    if not head.secrets:
        restored.notes.append(
            "no passwords and keys are in the backup: files that the configuration names must be here"
        )
