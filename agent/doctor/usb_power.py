"""USB: devices that are put to sleep, and sockets that gave too much current."""

from collections.abc import Iterator

from agent.doctor.finding import Finding
from agent.doctor.ports import configured, usb_folder
from agent.doctor.scene import Scene, first_line, number


def look(scene: Scene) -> Iterator[Finding]:
    """The devices behind configured ports, and every socket."""
    for port in configured(scene):
        usb = usb_folder(scene, port.device)
        if usb is None or first_line(usb / "power/control") != "auto":
            continue
        control = usb / "power/control"
        yield Finding(
            "usb.autosuspend",
            "warning",
            "the kernel may put {port} to sleep when nothing arrives for a while ({control} is auto)",
            f"sensors.{port.sensor}.port",
            'keep it awake; add ATTR{{power/control}}="on" to a udev rule to keep it so after the next start',
            ("echo on | sudo tee {control}",),
            {"port": port.named, "control": str(control)},
        )
    for counter in sorted((scene.root / "sys/bus/usb/devices").glob("*/*-port*/over_current_count")):
        times = number(first_line(counter)) or 0
        if times:
            yield Finding(
                "usb.over_current",
                "warning",
                "USB socket {socket} was switched off {times} times because what is plugged in took too much current",
                str(counter.parent),
                "use a powered hub or a shorter cable, and look for a damaged device",
                ("sudo dmesg | grep -i over-current",),
                {"socket": counter.parent.name, "times": times},
            )
