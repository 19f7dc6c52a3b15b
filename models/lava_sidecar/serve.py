"""The sidecar: a program for the Python that has Lava, which runs one network for ``models.backends.lava``.

``serve.py FDS...`` is a child of ``models.child``. Nothing of axond is installed in that Python: this file lets it
find ``models.child_serve`` and ``models.lava_sidecar``, which need the standard library, numpy, scipy and Lava only.
"""

import os
import sys
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP_STEPS = 16


def _find_models() -> None:
    """Make ``models`` importable without the folder above it: that may be the site-packages of another Python."""
    package = types.ModuleType("models")
    package.__path__ = [str(Path(__file__).resolve().parent.parent)]
    sys.modules["models"] = package


class _Network:
    """The network of this process, once it is loaded."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._run: Callable[[int], None] | None = None

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """``{"load": bytes, "steps": of the memory}``, then any number of ``{"run": steps}``."""
        if "load" in request:
            return self._load(request["load"], request["steps"])
        if self._run is None:
            return {"error": "no network is loaded"}
        self._run(request["run"])
        return {"overflow": [i for i, each in enumerate(self._shared.populations) if each.overflow[0]]}

    def _load(self, size: int, steps: int) -> dict[str, Any]:
        from models.lava_sidecar.chip import Chip, chip_is_here
        from models.lava_sidecar.graph import Simulation, inputs_of, neurons_of, read
        from models.lava_sidecar.layout import views
        from models.lava_sidecar.memory import contained

        stages = read(bytes(self._memory[:size]))
        self._memory[:size] = bytes(size)
        features = sum(map(inputs_of, stages[0]))
        self._shared = views(self._memory, features, [neurons_of(layer) for stage in stages for layer in stage], steps)
        on_chip = chip_is_here()
        with contained():
            network = (Chip if on_chip else Simulation)(stages, self._shared)
        warm_up = min(WARM_UP_STEPS, steps)
        network.run(warm_up)
        begun = time.monotonic()
        network.run(warm_up)
        self._run = network.run
        return {"on_chip": on_chip, "step_s": (time.monotonic() - begun) / warm_up}


def _setup(memory: memoryview) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return _Network(memory).handle


def main() -> None:
    """Serve until the agent goes away."""
    # A step is far too small for threads, and every process of the network would have its own.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    _find_models()
    from models.child_serve import serve

    try:
        serve(_setup)
    finally:
        # Without this, Lava's clean-up would wait at the end of Python for processes that wait for it.
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()
