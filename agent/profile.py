"""What suits a kind of board where the configuration says nothing: a table, and which row of it this board is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from agent.outbox_group import GROUP_S
from models.registry import AUTO_ORDER

MIB = 1 << 20
ProfileName: TypeAlias = Literal["auto", "jetson", "nuc", "pi", "generic"]

_MINI_PC = ("35", "36")
"""SMBIOS chassis types "Mini PC" and "Stick PC" (DMTF DSP0134, table 17)."""
_CPU_RUNTIMES = ("akida", "tflite", "onnx", "reference", "lava")
"""LiteRT takes 15 MiB less than ONNX Runtime and is no slower on the shipped networks. Lava is a simulation without a
board of Intel's, which no Arm board drives, so it comes last."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One row. Keys that the configuration names win over ``outbox`` and, in a pipeline, over ``backends``."""

    name: str
    board: str
    """What it is for, in a few words."""
    backends: tuple[str, ...] = AUTO_ORDER
    """What ``auto`` tries, in this order."""
    outbox: Mapping[str, int | float] = field(default_factory=lambda: MappingProxyType({}))
    """Defaults of keys of ``[outbox]``."""
    pins: bool = False
    """With four cores or more, sensors and pipelines get all but the first quarter of them to themselves."""
    urgent: bool = False
    """Where the system allows it, sensors run with a real-time priority, and pipelines before other programs."""
    reason: str = ""
    """Why it was chosen."""

    def facts(self) -> dict[str, Any]:
        """For people; what was reached of ``pins`` and ``urgent`` only a running agent knows."""
        return {
            "name": self.name,
            "board": self.board,
            "reason": self.reason,
            "backends": list(self.backends),
            "outbox": dict(self.outbox),
            "pins": self.pins,
            "urgent": self.urgent,
        }


def _outbox(max_mib: int, keep_free_mib: int, commit_interval_s: float) -> Mapping[str, int | float]:
    return MappingProxyType(
        {
            "max_bytes": max_mib * MIB,
            "keep_free_bytes": keep_free_mib * MIB,
            "commit_interval_s": commit_interval_s,
        }
    )


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("jetson", "NVIDIA Jetson, eMMC or NVMe", _CPU_RUNTIMES, _outbox(512, 512, 0.25), True, True),
        Profile("nuc", "NUC or another mini PC, SSD", AUTO_ORDER, _outbox(1024, 1024, GROUP_S), True, True),
        Profile("pi", "Raspberry Pi, SD card", _CPU_RUNTIMES, _outbox(128, 256, 1.0), True, True),
        Profile("generic", "any Linux machine", AUTO_ORDER, _outbox(256, 64, GROUP_S)),
    )
}


def choose(name: ProfileName, root: Path = Path("/")) -> Profile:
    """The profile of that name; with ``auto`` the one of the board whose files are below ``root``."""
    if name != "auto":
        return _because(name, f'device.profile = "{name}"')
    return detect(root)


def detect(root: Path = Path("/")) -> Profile:
    """The profile of this board, as its firmware names it; ``generic`` for one that is not known. Never raises."""
    model = _text(root / "proc/device-tree/model")
    compatible = _text(root / "proc/device-tree/compatible")
    if "Raspberry Pi" in model:
        return _because("pi", f"the board says {model!r}")
    if "nvidia,tegra" in compatible or "Jetson" in model or (root / "etc/nv_tegra_release").exists():
        return _because("jetson", f"the board says {model!r}" if model else "there is /etc/nv_tegra_release")
    dmi = root / "sys/class/dmi/id"
    for key in ("product_name", "board_name", "product_family"):
        told = _text(dmi / key)
        if told.upper().startswith("NUC") or " NUC" in told.upper():
            return _because("nuc", f"the firmware says {told!r}")
    if _text(dmi / "chassis_type") in _MINI_PC:
        return _because("nuc", "the firmware says that it is a mini PC")
    told = model or _text(dmi / "product_name")
    return _because("generic", f"no profile is made for {told!r}" if told else "the board does not say what it is")


def _because(name: str, reason: str) -> Profile:
    return replace(PROFILES[name], reason=reason)


def _text(path: Path) -> str:
    """A file of the kernel; empty where it is not there. Device trees end strings with NUL."""
    try:
        return path.read_bytes().decode("utf-8", "replace").replace("\0", " ").strip()
    except OSError:
        return ""
