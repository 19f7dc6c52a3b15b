"""What runs here: versions, the board and the system."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from agent.doctor.finding import Finding, Word
from agent.doctor.scene import Scene
from agent.version import agent_version

PACKAGES = (
    "numpy",
    "pydantic",
    "paho-mqtt",
    "pyserial",
    "zstandard",
    "onnxruntime",
    "ai-edge-litert",
    "akida",
    "lava-nc",
)


def look(scene: Scene) -> Iterator[Finding]:
    """Of axond, of what it stands on, and of the machine."""
    packages = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    yield Finding(
        "versions.axond", "ok", "axond {axond}, Python {python}; {packages}",
        facts={
            "axond": Word(agent_version()), "python": Word(platform.python_version()), "packages": Word(packages),
        },
    )  # fmt: skip
    release = dict(line.replace('"', "").split("=", 1) for line in scene.lines("etc/os-release") if "=" in line)
    board = scene.line("proc/device-tree/model") or scene.line("sys/class/dmi/id/product_name")
    yield Finding(
        "versions.system", "ok", "{board}, {machine}; {distribution}, Linux {kernel}",
        facts={
            "board": Word(board or "unknown board"), "machine": Word(platform.machine()),
            "distribution": Word(release.get("PRETTY_NAME", "unknown system")), "kernel": Word(platform.release()),
        },
    )  # fmt: skip
    running = (scene.status or {}).get("agent")
    if running is not None and running != agent_version():
        yield Finding(
            "versions.old_agent", "warning", "the running agent is axond {running}, installed is {axond}", "",
            "restart it", ("sudo systemctl restart axond",),
            {"running": str(running), "axond": Word(agent_version())},
        )  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
