"""Find a dataset on this machine and read it. Each layout has a module of its own; a marker file tells which it is."""

import importlib
import os
from pathlib import Path

from models.datasets.public.known import advice
from models.datasets.recording import DataError, Recording

HERE = Path(__file__).parent


def cache() -> Path:
    """Where ``axond data get`` puts datasets, each in a folder of its name."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "axond" / "data"


def find(name: str) -> Path | None:
    """The folder of dataset ``name``: in $AXOND_DATA, else ../shared/data beside the project, else the user's cache."""
    places = [HERE.resolve().parents[2] / "shared" / "data", cache()]
    if os.environ.get("AXOND_DATA"):
        places.insert(0, Path(os.environ["AXOND_DATA"]))
    return next((place / name for place in places if (place / name).is_dir()), None)


def required(name: str, given: Path | None = None) -> Path:
    """``given``, else the folder of dataset ``name``. Raises DataError where there is none."""
    folder = given or find(name)
    if folder is None:
        raise DataError(
            f"dataset {name} was not found; give its folder, or set AXOND_DATA to its parent folder{advice(name)}"
        )
    return folder


def load(folder: Path, split: str) -> list[Recording]:
    """All recordings of one split, in the order of the dataset. Raises DataError."""
    markers = []
    for layout in sorted(path.stem for path in HERE.glob("*.py")):
        module = importlib.import_module(f"models.datasets.{layout}")
        if not hasattr(module, "MARKER"):
            continue
        if next(folder.glob(module.MARKER), None) is not None:
            recordings: list[Recording] = module.load(folder, split)
            return recordings
        markers.append(module.MARKER)
    expected = f"{', '.join(markers[:-1])} or {markers[-1]}"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected a dataset with {expected}{advice(folder.name)}")
    raise DataError(f"{folder}: none of {expected} is there; point at a dataset's own folder")
