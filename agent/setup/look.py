"""What is plugged into this machine, as sensors that could be configured; and what keeps some from being usable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from drivers import inventory
from drivers.base import Driver, DriverError, Unavailable
from drivers.extras import how_to_install
from drivers.packet import SensorInfo
from drivers.probe import probe
from drivers.registry import driver_class

PREFIXES = {"audio": "mic", "imu": "imu", "event_camera": "cam", "ultrasonic": "sonar"}
"""Family of a sensor -> how it is called in the configuration, with a number behind it."""
AUDIO_HZ = (16000, 8000)
"""What the shipped models for microphones take; the first is that of most."""
USB_CAMERAS = {0x8419: "dvxplorer", 0x841A: "davis346", 0x00F4: "evk3_hd", 0x00F5: "evk4"}
"""USB product -> ``device`` of ``event_camera.usb``."""


@dataclass(slots=True)
class Candidate:
    """A sensor that could be configured."""

    kind: str
    place: str
    """What it is plugged into, for people."""
    variants: list[dict[str, Any]]
    """Settings that it can have, the usual ones first."""
    note: str = ""
    name: str = ""

    def info(self, variant: int = 0) -> SensorInfo:
        """What it gives with these settings. ``ValidationError`` if they are wrong."""
        return self.driver(variant).info()

    def driver(self, variant: int = 0) -> Driver[Any]:
        """Touches no hardware."""
        found = driver_class(self.kind)
        return found(self.name or "sensor", found.Config.model_validate(self.variants[variant]))


@dataclass(slots=True)
class Looked:
    """What there is."""

    candidates: list[Candidate] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """A sentence for each thing that is there and cannot be used."""


Say = Callable[[str], None]


def look(ports: Sequence[str], say: Say) -> Looked:
    """Looks at everything; listens to every serial port and writes to none but those of ``ports``, if it must.

    With ``ports`` no other port is listened to. ``say`` gets a line of progress at a time.
    """
    looked = Looked()
    _serial(looked, ports, say)
    _microphones(looked)
    _cameras(looked)
    give_names(looked.candidates)
    return looked


def give_names(candidates: Sequence[Candidate], taken: Sequence[str] = ()) -> None:
    """A short name for each that has none: imu0, mic0, mic1."""
    used = {*taken, *(candidate.name for candidate in candidates)}
    for candidate in candidates:
        prefix = PREFIXES.get(candidate.info().family, "sensor")
        number = 0
        while not candidate.name:
            name = f"{prefix}{number}"
            number += 1
            if name not in used:
                candidate.name = name
                used.add(name)


def made() -> Candidate:
    """A sensor for a machine that has none."""
    return Candidate("synthetic", "no device: it is computed", [{"signal": "motion", "rate_hz": 50}], name="made0")


def _serial(looked: Looked, ports: Sequence[str], say: Say) -> None:
    there = inventory.serial_ports()
    named = {name: port for port in there for name in (port.device, port.stable) if name}
    for name in ports or [port.stable or port.device for port in there]:
        port = named.get(name)
        if port and port.holder:
            looked.problems.append(f"{name} is held by {port.holder}: end that program, and run axond setup again")
            continue
        if port and port.access != "ok":
            looked.problems.append(f"{name} may not be opened by this user ({port.access}): run axond setup with sudo")
            continue
        try:
            report = probe(name, ask=bool(ports), say=say)
        except Unavailable as error:
            looked.problems.append(f"{name}: {error}")
            continue
        if report.found:
            best = report.found[0]
            place = f"{name} at {best.settings.get('baud', '?')} baud"
            looked.candidates.append(Candidate(best.kind, place, [{"port": name, **best.settings}], best.note))
        else:
            loud = max(report.heard.values(), default=0) > 0
            heard = "no driver understands what it sends" if loud else "it sends nothing"
            looked.problems.append(f"{name}: {heard}; more about it: axond sensors probe {name}")


def _microphones(looked: Looked) -> None:
    devices = inventory.capture_devices()
    if devices and find_spec("alsaaudio") is None:
        looked.problems.append(
            f"{devices[0].product} could be a microphone, but the ALSA library for Python is missing: "
            f"apt install python3-alsaaudio, or {how_to_install('alsa')}"
        )
        return
    for device in devices:
        if device.holder:
            looked.problems.append(f"{device.device} is held by {device.holder}: end that program, and run it again")
            continue
        # plughw: ALSA converts to the rate and the one channel that the models take.
        name = f"plug{device.device}"
        variants = [{"device": name, "rate_hz": rate_hz} for rate_hz in AUDIO_HZ]
        looked.candidates.append(Candidate("audio.alsa", f"{device.product} ({name})", variants))


def _cameras(looked: Looked) -> None:
    for camera in inventory.event_cameras():
        product, _, serial = camera.usb_id.partition(":")[2].partition(":")
        device = USB_CAMERAS.get(int(product, 16))
        if device is None:
            looked.problems.append(f"{camera.product} ({camera.usb_id}): no driver of axond knows this event camera")
        elif find_spec("neuromorphic_drivers") is None:
            looked.problems.append(f"{camera.product} needs its USB driver: {how_to_install('events')}")
        elif camera.access != "ok":
            looked.problems.append(f"{camera.product} may not be opened by this user ({camera.access})")
        else:
            settings = {"device": device, **({"serial": serial} if serial else {})}
            looked.candidates.append(Candidate("event_camera.usb", f"{camera.product} ({camera.usb_id})", [settings]))


def usable(candidate: Candidate) -> str | None:
    """None, or what is wrong with the settings of a candidate, in one sentence."""
    try:
        candidate.info()
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        return f"{candidate.name}: {where}: {problem['msg']}"
    except DriverError as error:
        return f"{candidate.name}: {error}"
    return None
