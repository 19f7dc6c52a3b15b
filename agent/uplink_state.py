"""What the uplink tells of itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UplinkState:
    """A snapshot for displays. ``since_s`` is how long it has been connected or not."""

    connected: bool
    since_s: float
    in_flight: int
    error: str | None
    sent: int
    delivered: int
    """Rows."""
    rewinds: int
    """How often all of a stream was sent again, or a silent hub was asked again."""
    resent: int = 0
    """Single records that were lost on the way and sent again."""
    broker: str = ""
    """Host and port of the broker in use, or of the last one."""
    mqtt: str = ""
    """The version of the protocol."""
    connections: int = 0
    """How often it was connected since the start."""
