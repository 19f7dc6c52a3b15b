"""Power supply and temperature: what slows a board down, or lets its writes go wrong."""

from collections.abc import Iterator

from agent.doctor.finding import Finding
from agent.doctor.scene import Scene, first_line, number

THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
"""Raspberry Pi: bits of vcgencmd get_throttled. 0 to 3 are now, 16 to 19 since the start."""
UNDER_VOLTAGE, CAPPED, SLOWED, SOFT_LIMIT = 1 << 0, 1 << 1, 1 << 2, 1 << 3
SINCE_START = 16
NEAR_MC = 5000
"""So few thousandths of a degree below a trip point are close."""
TRIPS = ("passive", "hot", "critical")


def look(scene: Scene) -> Iterator[Finding]:
    """A Pi's firmware, its supply monitor, and thermal zones with their trip points."""
    bits = number(scene.line(THROTTLED), 16) or 0
    alarms = [
        file
        for file in sorted((scene.root / "sys/class/hwmon").glob("hwmon*/in0_lcrit_alarm"))
        if first_line(file) == "1"
    ]
    if alarms or bits & (UNDER_VOLTAGE | UNDER_VOLTAGE << SINCE_START):
        now = bool(alarms) or bool(bits & UNDER_VOLTAGE)
        yield Finding(
            "power.under_voltage",
            "problem" if now else "warning",
            "the supply voltage is too low now" if now else "the supply voltage was too low since the last start",
            str(alarms[0] if alarms else scene.root / THROTTLED),
            "use the board's own power supply and a short cable; USB sensors may need a powered hub",
            ("sudo dmesg | grep -i voltage",),
        )
    slow = CAPPED | SLOWED | SOFT_LIMIT
    if bits & (slow | slow << SINCE_START):
        now = bool(bits & slow)
        yield Finding(
            "power.throttled",
            "warning" if now else "note",
            "the firmware slows the processor down now ({bits:#x})" if now
            else "the firmware slowed the processor down since the last start ({bits:#x})",
            str(scene.root / THROTTLED),
            "give it a cooler, a fan or more air, and the right power supply",
            facts={"bits": bits},
        )  # fmt: skip
    for zone in sorted((scene.root / "sys/class/thermal").glob("thermal_zone*")):
        now_mc = number(first_line(zone / "temp"))
        if now_mc is None:
            continue
        limits = {
            kind: limit
            for trip in zone.glob("trip_point_*_type")
            if (kind := first_line(trip)) in TRIPS
            and (limit := number(first_line(trip.with_name(trip.name.replace("_type", "_temp")))))
        }
        first_mc = min((limit for limit in limits.values() if limit > 0), default=None)
        if first_mc is not None and now_mc >= first_mc - NEAR_MC:
            yield Finding(
                "power.hot",
                "warning",
                "{zone} has {now_c:.0f} degrees; at {limit_c:.0f} the board slows down or switches off",
                str(zone),
                "give it a cooler, a fan or more air",
                facts={"zone": first_line(zone / "type"), "now_c": now_mc / 1000, "limit_c": first_mc / 1000},
            )
