"""The locked wheels are what pyproject.toml demands, for each Python and both processors."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

TREE = Path(__file__).parents[2]
DEB = TREE / "packaging" / "deb"
LOCKS = sorted(DEB.glob("locked-*.txt"))


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    sys.path.insert(0, str(DEB))
    try:
        spec = importlib.util.spec_from_file_location("axond_deb_lock", DEB / "lock.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DEB))
    return module


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_what_is_demanded_is_locked_with_its_sum(path: Path, lock: ModuleType) -> None:
    text = path.read_text()
    python = path.stem.removeprefix("locked-")
    locked = dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+) \\$", text))
    for line in lock.wanted():
        demand = Requirement(line)
        if demand.marker is None or demand.marker.evaluate({"python_version": python}):
            name = re.sub(r"[-_.]+", "-", demand.name).lower()
            assert name in locked, f"{line} is not in {path.name}: make lock"
            assert demand.specifier.contains(locked[name]), f"{line}, {path.name} has {locked[name]}: make lock"
    # Nothing but names, versions and sums: from where they come is each machine's own business.
    rest = re.sub(r"(?m)^(#.*|[a-z0-9-]+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?)$", "", text)
    assert rest.strip() == ""
    for name in ("numpy", "onnxruntime", "pydantic-core", "ai-edge-litert"):
        (block,) = re.findall(rf"(?m)^{name}==(?:.*\n)(?:    .*\n?)+", text)
        assert block.count("sha256") == 2, f"{name}: one sum for each processor"


def test_there_is_a_lock_for_each_python_a_package_is_made_for(lock: ModuleType) -> None:
    assert {path.stem.removeprefix("locked-") for path in LOCKS} == {*lock.GLIBC_MINORS}
