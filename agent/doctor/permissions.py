"""May the user that runs axond use what it needs, and may nobody else read its secrets?"""

import os
from collections.abc import Iterator
from grp import getgrgid
from ipaddress import ip_address
from pathlib import Path
from pwd import getpwuid

from agent.doctor.finding import Finding, Word
from agent.doctor.ports import configured
from agent.doctor.scene import Scene, there
from agent.web.config import DEFAULT_LISTEN, split_listen

SECRETS = ("password_file", "key_file", "token_file")


def look(scene: Scene) -> Iterator[Finding]:
    """The state folder, the files with secrets, serial ports and sound devices."""
    if scene.document:
        yield from _state_dir(scene)
    yield from _secrets(scene)
    yield from _web(scene)
    for port in configured(scene):
        if there(port.path) and scene.status is None:
            yield from _device(scene, port.path, f"sensors.{port.sensor}.port")
    if any(sensor.kind == "audio.alsa" for sensor in scene.settings.sensors.values()):
        for node in sorted((scene.root / "dev/snd").glob("pcm*c")):
            yield from _device(scene, node, str(node))


def _state_dir(scene: Scene) -> Iterator[Finding]:
    folder, user = scene.state_dir, scene.runner
    facts: dict[str, object] = {"folder": str(folder), "user": user.name}
    if not there(folder):
        parent = next(parent for parent in folder.parents if there(parent))
        if not user.may(parent, "wx"):
            yield Finding(
                "permissions.state_dir",
                "problem",
                "{folder} is not there, and {user} may not make it in {parent}",
                "device.state_dir",
                "make it for that user, or name a folder of theirs",
                ("sudo install -d -o {user} -m 750 {folder}",),
                {**facts, "parent": str(parent)},
            )
        return
    if not folder.is_dir():
        yield Finding(
            "permissions.state_dir", "problem", "{folder} is a file, not a folder", "device.state_dir",
            "name a folder", ("axond check --config {config}",), {**facts, "config": str(scene.path)},
        )  # fmt: skip
        return
    status = folder.stat()
    facts |= {"owner": _owner(status.st_uid), "mode": status.st_mode & 0o777}
    if not user.may(folder, "rwx"):
        yield Finding(
            "permissions.state_dir",
            "problem",
            "{folder} belongs to {owner} with mode {mode:o}: {user}, who runs axond, may not write there",
            "device.state_dir",
            "give the folder and what is in it to that user",
            ("sudo chown -R {user}: {folder}", "sudo chmod 750 {folder}"),
            facts,
        )
    elif status.st_mode & 0o002:
        yield Finding(
            "permissions.state_open",
            "warning",
            "{folder} has mode {mode:o}: everybody may delete results and put models there",
            "device.state_dir",
            "take that right away",
            ("sudo chmod o-w {folder}",),
            facts,
        )
    else:
        yield from _strangers(scene, facts)


def _strangers(scene: Scene, facts: dict[str, object]) -> Iterator[Finding]:
    """Files that a run as another user, as root often, has left in the state folder."""
    locked = [
        path for path in (scene.outbox, *scene.state_dir.glob("outbox.db-*"), scene.state_dir / "outbox.db.lock")
        if there(path) and not scene.runner.may(path)
    ]  # fmt: skip
    if locked:
        yield Finding(
            "permissions.state_files",
            "problem",
            "{path} belongs to {owner}: {user}, who runs axond, may not write it; was axond once run as another user?",
            "device.state_dir",
            "give the folder and what is in it to that user",
            ("sudo chown -R {user}: {folder}",),
            {**facts, "path": str(locked[0]), "owner": _owner(locked[0].stat().st_uid)},
        )
    else:
        yield Finding(
            "permissions.state_fine", "ok", "{folder} can be written by {user} and by no stranger", "device.state_dir",
            facts=facts,
        )  # fmt: skip


def _secrets(scene: Scene) -> Iterator[Finding]:
    settings = scene.settings
    tables = [("uplink", settings.uplink), *((f"mirrors.{name}", m.settings) for name, m in settings.mirrors.items())]
    for table, values in tables:
        for key in SECRETS:
            path: Path | None = getattr(values, key, None)
            if path is None or not there(path):
                continue
            mode = path.stat().st_mode & 0o777
            facts: dict[str, object] = {"path": str(path), "mode": mode, "user": scene.runner.name}
            if mode & 0o007:
                yield Finding(
                    "permissions.secret_open",
                    "warning",
                    "{path} has mode {mode:o}: every user of this machine may use the secret in it",
                    f"{table}.{key}",
                    "let only its owner and its group read it, and take a new secret if others were here",
                    ("sudo chmod o-rwx {path}",),
                    facts,
                )
            if not scene.runner.may(path, "r"):
                yield Finding(
                    "permissions.secret_unreadable",
                    "problem",
                    "{path} has mode {mode:o} and cannot be read by {user}, who runs axond",
                    f"{table}.{key}",
                    "give it to that user",
                    ("sudo chown {user}: {path}",),
                    facts,
                )


def _web(scene: Scene) -> Iterator[Finding]:
    for listen in scene.settings.http.listen:
        if not ip_address(split_listen(listen)[0]).is_loopback:
            yield Finding(
                "permissions.http_open", "warning",
                "health, metrics and status are shown on {listen} to everybody who reaches it, without a login",
                "http.listen", 'write listen = "{usual}", or let a firewall decide who reaches it',
                ("ss -ltn",), {"listen": listen, "usual": Word(DEFAULT_LISTEN)},
            )  # fmt: skip


def _device(scene: Scene, path: Path, where: str) -> Iterator[Finding]:
    if scene.runner.may(path):
        return
    status = path.stat()
    try:
        group = getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    facts: dict[str, object] = {"path": str(path), "user": scene.runner.name, "group": group}
    if status.st_mode & 0o060 == 0o060 and status.st_gid != 0:
        yield Finding(
            "permissions.group",
            "problem",
            "{path} is for the group {group}, and {user}, who runs axond, is not in it",
            where,
            "add the user to the group; it counts from the next login, or start of the service, on",
            ("sudo usermod -aG {group} {user}", "sudo systemctl restart axond"),
            facts,
        )
        return
    yield Finding(
        "permissions.device",
        "problem",
        "{path} cannot be opened by {user}, who runs axond, nor by its group {group}",
        where,
        "install axond's udev rules (its package has them, else packaging/udev/60-axond.rules of its source), which "
        "give sensors to a group, and plug the device in again",
        ("sudo udevadm control --reload", "sudo udevadm trigger"),
        facts,
    )


def _owner(uid: int) -> str:
    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return str(uid) if uid != os.geteuid() else "this user"
