"""Few results out of many inferences: of a stream that decides at every step, only where something was heard."""

from pydantic import BaseModel, ConfigDict, Field


class DetectSpec(BaseModel):
    """Part ``detect`` of a bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    threshold: float = Field(ge=0, le=1)
    """An inference of at least this score is a detection."""
    ignore: list[str] = Field(default=[], max_length=1000)
    """Labels that never are one, as ``background``."""
    hold_s: float = Field(ge=0, le=3600)
    """Detections that follow each other by no more than this are one, which has the first one's label."""


class Detector:
    """Tells the first inference of each detection; one stream's, in the order of time."""

    def __init__(self, spec: DetectSpec) -> None:
        self._threshold = spec.threshold
        self._ignore = frozenset(spec.ignore)
        self._hold_ns = round(spec.hold_s * 1e9)
        self._last_ns: int | None = None

    def hears(self, label: str, score: float, end_ns: int) -> bool:
        """True if a detection begins with this inference. Where time went back everything is new."""
        if score < self._threshold or label in self._ignore:
            return False
        last_ns, self._last_ns = self._last_ns, end_ns
        return last_ns is None or not 0 <= end_ns - last_ns <= self._hold_ns
