"""A third party's backend that fails on demand: what stands in the file $AXOND_FAULT happens in the next ``infer``."""

import ctypes
import os
from pathlib import Path

import numpy as np

from models.backends.reference import ReferenceBackend
from models.base import Backend, BackendUnavailable, IoSpec, Outputs, Raster, State, Trace
from models.bundle import Bundle

ROOT = Path(__file__).parents[2]


class FaultyBackend(Backend):
    """Right until then, as it is the reference."""

    isolate = True

    def __init__(self) -> None:
        self._real = ReferenceBackend()

    def load(self, bundle: Bundle) -> IoSpec:
        if fault() == "missing":
            raise BackendUnavailable("the chip is not plugged in")
        return self._real.load(bundle)

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        now = fault()
        if now and state is not None:
            state.u[0][:] = 77  # a failure leaves half-written state behind
        if now == "crash":
            ctypes.string_at(0)
        if now == "exit":
            os._exit(9)
        if now == "hang":
            sum(range(10**13))  # one call that keeps the GIL
        if now == "fill":
            kept = []
            while True:
                kept.append(np.ones(1 << 24))
        if now == "error":
            raise BackendUnavailable("the chip does not answer")
        return self._real.infer(raster, state, trace)

    def close(self) -> None:
        self._real.close()


def fault() -> str:
    try:
        return Path(os.environ["AXOND_FAULT"]).read_text().strip()
    except (KeyError, FileNotFoundError):
        return ""


def install(folder: Path, kind: str = "faulty") -> None:
    """Leave in ``folder``, which is or will be on the path, what pip would leave of a third party's package."""
    info = folder / f"{kind}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {kind}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[axond.backends]\n{kind} = tests.models.faulty:BACKEND\n")


BACKEND = FaultyBackend
