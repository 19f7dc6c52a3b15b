"""Wall-following robot: the first 80 % in time of its readings, as they are; the rest is held out."""

from models.datasets.public.content import Files, take

PATH = "sensor_readings_24.data"
ROWS = 4365


def wants(path: str) -> bool:
    """Whether this is the file of readings."""
    return path == PATH


def remake(found: Files) -> dict[str, bytes]:
    """The dataset, of the whole run. Raises DataError."""
    (content,) = take(found, [PATH])
    return {"sensor_readings_24.csv": b"".join(content.splitlines(keepends=True)[: 1 + ROWS])}
