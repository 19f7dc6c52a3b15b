"""Are the serial ports there, is each used once, and does nobody else take them?"""

from collections import defaultdict
from collections.abc import Iterator

from agent.doctor.finding import Finding, Word
from agent.doctor.ports import Port, configured, usb_folder
from agent.doctor.scene import Scene, first_line, there
from drivers.inventory import NO_SERIALS, holder, serial_ports, stable_name

GRABBERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "ModemManager": ("ModemManager", "asks USB ports whether they are modems, with bytes that disturb a sensor", ()),
    "brltty": ("brltty", "takes ports with the bridges CH340 and CP210x for Braille displays", ("1a86", "10c4")),
}
"""Program -> its service, what it does, and to which USB vendors (none: to all that udev does not exempt)."""
IGNORE = "ID_MM_DEVICE_IGNORE=1"


def look(scene: Scene) -> Iterator[Finding]:
    """Every port that the configuration names."""
    users: dict[str, list[Port]] = defaultdict(list)
    for port in configured(scene):
        users[str(port.device)].append(port)
        yield from _port(scene, port)
    for device, ports in users.items():
        if len(ports) > 1:
            yield Finding(
                "serial.shared",
                "problem",
                "sensors {first} and {second} both name {device}; only one of them can have it",
                f"sensors.{ports[1].sensor}.port",
                "give each sensor a port of its own",
                ("axond sensors list",),
                {"first": ports[0].sensor, "second": ports[1].sensor, "device": device},
            )


def _port(scene: Scene, port: Port) -> Iterator[Finding]:
    where = f"sensors.{port.sensor}.port"
    facts: dict[str, object] = {"port": port.named, "sensor": port.sensor}
    if not there(port.path):
        present = ", ".join(one.stable or one.device for one in serial_ports()) or "none"
        yield Finding(
            "serial.missing",
            "problem",
            "{port} is not there ({problem}); serial ports that are: {there}",
            where,
            "check cable and power of the sensor, or name the port that it has now",
            ("axond sensors list", "sudo dmesg | grep -i tty | tail"),
            {**facts, "problem": port.problem or Word("no such file"), "there": present},
        )
        return
    # Where an agent runs it is the one that has the port.
    owner = None if scene.in_use else holder(port.path, scene.root / "proc")
    if owner is not None:
        yield Finding(
            "serial.held",
            "warning",
            "{port} is open in another process, {owner}, which may take what the sensor says",
            where,
            "stop that process, or give the sensor a port of its own",
            ("sudo fuser -v {port}",),
            {**facts, "owner": owner},
        )
    usb = usb_folder(scene, port.device)
    yield from _name(scene, port, where, unique=usb is None or first_line(usb / "serial") not in ("", *NO_SERIALS))
    if usb is not None:
        yield from _grabbers(scene, port, first_line(usb / "idVendor"), where)
    if owner is None:
        yield Finding(
            "serial.there", "ok", "{port} is there" if scene.in_use else "{port} is there, and nobody else has it",
            where, facts=facts,
        )  # fmt: skip


def _name(scene: Scene, port: Port, where: str, *, unique: bool) -> Iterator[Finding]:
    """A name like /dev/ttyUSB0 goes to another device when they are plugged in another order."""
    if port.path.is_symlink() or "/" not in port.named:
        return
    stable = stable_name(port.path, scene.root / "dev", unique=unique)
    if stable is not None:
        yield Finding(
            "serial.unstable_name",
            "note",
            "{port} may be another device after the next start; this one is always {stable}",
            where,
            'write port = "{stable}"',
            facts={"port": port.named, "stable": stable},
        )


def _grabbers(scene: Scene, port: Port, vendor: str, where: str) -> Iterator[Finding]:
    names = {first_line(folder / "comm") for folder in (scene.root / "proc").glob("[0-9]*")}
    number = scene.line(f"sys/class/tty/{port.device.name}/dev")
    ignored = IGNORE in "\n".join(scene.lines(f"run/udev/data/c{number}"))
    for name, (service, what, vendors) in GRABBERS.items():
        if name not in names or (vendors and vendor not in vendors) or (ignored and not vendors):
            continue
        yield Finding(
            f"serial.{service.lower()}",
            "warning",
            "{name} runs: it {what}, and {port} is one",
            where,
            "stop it if this device has no modem and no Braille display; axond's udev rules keep ModemManager away",
            ("sudo systemctl disable --now {service}",),
            {"name": Word(name), "what": Word(what), "port": port.named, "service": Word(service)},
        )
