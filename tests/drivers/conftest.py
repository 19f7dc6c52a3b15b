import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Recordings for development: ``AXOND_DATA``, else ``../shared/data`` beside the project."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    found = Path(os.environ.get("AXOND_DATA", beside))
    if not found.is_dir():
        pytest.skip(f"no recordings at {found}; set AXOND_DATA")
    return found
