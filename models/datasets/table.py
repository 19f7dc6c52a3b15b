"""Tables of files with their labels: CSV with the columns ``file``, a label and ``split``."""

import csv
from pathlib import Path

from models.datasets.recording import DataError


def rows_of(table: Path, split: str, labels: tuple[str, ...]) -> tuple[list[dict[str, str]], str]:
    """The rows of one split in their order, and which of the columns ``labels`` is there. Raises DataError."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, restkey="", restval="")
            columns = reader.fieldnames or []
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table}: not a readable table ({error})") from error
    label = next((name for name in labels if name in columns), None)
    if label is None or not {"file", "split"} <= set(columns):
        found = ", ".join(columns)[:200] or "none"
        raise DataError(f"{table}: expected columns file, split and {' or '.join(labels)}, found {found}")
    chosen = [row for row in rows if row["split"] == split]
    if not chosen:
        splits = sorted({str(row["split"]) for row in rows})
        raise DataError(f"{table}: no rows of split {split!r}; there are {', '.join(splits)[:200] or 'none'}")
    bare = next((row for row in chosen if not row["file"] or not row[label]), None)
    if bare is not None:
        said = ", ".join(filter(None, (bare["file"], bare[label]))) or "neither"
        raise DataError(f"{table}: a row of split {split!r} has {said}, expected both file and {label}")
    return chosen, label
