"""All checks, in the order in which people read about them."""

from agent.doctor import (
    accelerators,
    broker,
    certificates,
    clock,
    configuration,
    disk,
    heat,
    listening,
    outbox,
    permissions,
    running,
    serial_ports,
    service,
    sound,
    usb_power,
    versions,
)
from agent.doctor.finding import Check

CHECKS = (
    Check("config", configuration.look, configuration.DEADLINE_S),
    Check("agent", running.look),
    Check("service", service.look),
    Check("permissions", permissions.look),
    Check("serial", serial_ports.look),
    Check("usb", usb_power.look),
    Check("audio", sound.look),
    Check("sensors", listening.look, listening.DEADLINE_S),
    Check("accelerators", accelerators.look, accelerators.DEADLINE_S),
    Check("clock", clock.look),
    Check("certificates", certificates.look),
    Check("broker", broker.look, broker.DEADLINE_S),
    Check("outbox", outbox.look, outbox.DEADLINE_S),
    Check("disk", disk.look),
    Check("power", heat.look),
    Check("versions", versions.look),
)
