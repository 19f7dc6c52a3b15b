"""Serial ports that the configuration names."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serial.tools import list_ports

from agent.doctor.scene import Scene
from drivers.base import Unavailable
from drivers.lib.serial_link import find_port


@dataclass(frozen=True, slots=True)
class Port:
    """The port of one sensor. A USB id that nothing or too much has is a path that does not exist."""

    sensor: str
    named: str
    """As the configuration says it."""
    path: Path
    problem: str | None = None
    """Why the USB id leads nowhere."""

    @property
    def device(self) -> Path:
        return self.path.resolve()


def configured(scene: Scene) -> Iterator[Port]:
    """The port of each sensor that has one."""
    for name, sensor in scene.settings.sensors.items():
        port = getattr(sensor.settings, "port", None)
        if not isinstance(port, str):
            continue
        if "\0" in port:
            yield Port(name, port, scene.root / "dev/none", "a path has no NUL characters")
        elif "/" in port:
            yield Port(name, port, Path(port))
        else:
            yield _by_id(scene, name, port)


def _by_id(scene: Scene, name: str, usb_id: str) -> Port:
    try:
        return Port(name, usb_id, Path(find_port(usb_id, list_ports.comports())))
    except Unavailable as error:
        return Port(name, usb_id, scene.root / "dev/none", str(error))


def usb_folder(scene: Scene, device: Path) -> Path | None:
    """Where sysfs tells of the USB device behind a serial port; None for a port of another kind."""
    place = scene.root / "sys/class/tty" / device.name / "device"
    if not place.exists():
        return None
    at = place.resolve()
    return next((folder for folder in (at, *at.parents) if (folder / "idVendor").is_file()), None)
