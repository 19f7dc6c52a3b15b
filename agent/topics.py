"""Topic names. Levels use ``[a-z0-9_-]`` only: other brokers rewrite dots or disconnect on dots and blanks."""

import re
from dataclasses import dataclass

ROOT = "axond/v1"
ROOT_PATTERN = r"[a-z0-9_-]+(/[a-z0-9_-]+)*"
DOCUMENTS = ("status", "info", "metrics", "event", "clock")
"""What a device publishes besides results."""
NAME = re.compile(r"[a-z0-9_-]{1,64}\Z")
"""A device id, boot id or stream name; use with ``NAME.match``."""


def is_name(text: object) -> bool:
    return isinstance(text, str) and NAME.match(text) is not None


@dataclass(frozen=True, slots=True)
class Topics:
    """Topic names of one device under one root."""

    root: str
    device: str

    @property
    def status(self) -> str:
        return f"{self.root}/{self.device}/up/status"

    @property
    def info(self) -> str:
        return f"{self.root}/{self.device}/up/info"

    @property
    def metrics(self) -> str:
        return f"{self.root}/{self.device}/up/metrics"

    @property
    def event(self) -> str:
        return f"{self.root}/{self.device}/up/event"

    @property
    def clock(self) -> str:
        return f"{self.root}/{self.device}/up/clock"

    def live(self, stream: str) -> str:
        return f"{self.root}/{self.device}/up/live/{stream}"

    def results(self, stream: str) -> str:
        return f"{self.root}/{self.device}/up/res/{stream}"

    def ack(self, stream: str) -> str:
        """Where the watermark of a stream arrives; ``+`` as the stream is the filter for all of them."""
        return f"{self.root}/{self.device}/down/ack/{stream}"

    def ack_stream(self, topic: str) -> str | None:
        """The stream of an acknowledgement topic of this device; None for any other topic."""
        prefix = self.ack("")
        stream = topic[len(prefix) :]
        return stream if topic.startswith(prefix) and is_name(stream) else None


@dataclass(frozen=True, slots=True)
class UpTopic:
    """A topic that a device publishes to and the hub understands."""

    device: str
    kind: str
    """``res``, ``status``, ``info``, ``metrics``, ``event`` or ``clock``."""
    stream: str = ""
    """Set for ``res`` only."""


def hub_filters(root: str) -> tuple[str, ...]:
    """What a hub subscribes to."""
    return (f"{root}/+/up/res/+", *(f"{root}/+/up/{kind}" for kind in DOCUMENTS))


def parse_up(root: str, topic: str) -> UpTopic | None:
    """Takes a topic apart; None if the hub has no business with it or a name in it is not allowed."""
    if not topic.startswith(root + "/"):
        return None
    levels = topic[len(root) + 1 :].split("/")
    if len(levels) < 3 or levels[1] != "up" or not is_name(levels[0]):
        return None
    if len(levels) == 3 and levels[2] in DOCUMENTS:
        return UpTopic(levels[0], levels[2])
    if len(levels) == 4 and levels[2] == "res" and is_name(levels[3]):
        return UpTopic(levels[0], "res", levels[3])
    return None
