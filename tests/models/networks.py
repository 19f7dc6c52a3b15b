"""Made networks and bundles for tests."""

import hashlib
from pathlib import Path

import nir
import numpy as np

from drivers.packet import SensorInfo
from models import bundle
from models.contract_networks import manifest, random_network, random_raster, write_bundle

__all__ = ["manifest", "nir_graph", "random_network", "random_raster", "seal", "sensor", "write_bundle"]


def nir_graph(
    rng: np.random.Generator, features: int = 6, hidden: int = 8, classes: int = 3, dt: float = 0.01
) -> nir.NIRGraph:
    """Input -> Linear -> recurrent CubaLIF -> Linear -> CubaLI -> Output."""

    def cuba(n: int, spiking: bool) -> nir.NIRNode:
        tau_syn, tau_mem = np.full(n, 0.02), np.full(n, 0.05)
        common = {
            "tau_syn": tau_syn,
            "tau_mem": tau_mem,
            "r": tau_mem / dt,
            "v_leak": np.zeros(n),
            "w_in": tau_syn / dt,
        }
        if not spiking:
            return nir.CubaLI(**common)
        return nir.CubaLIF(**common, v_threshold=np.full(n, 1.0), v_reset=np.zeros(n))

    nodes = {
        "input": nir.Input({"input": np.array([features])}),
        "fc1": nir.Linear(rng.normal(0, 0.6, (hidden, features))),
        "rec": nir.Linear(rng.normal(0, 0.2, (hidden, hidden))),
        "lif1": cuba(hidden, True),
        "fc2": nir.Linear(rng.normal(0, 0.5, (classes, hidden))),
        "out": cuba(classes, False),
        "output": nir.Output({"output": np.array([classes])}),
    }
    edges = [
        ("input", "fc1"), ("fc1", "lif1"), ("lif1", "rec"), ("rec", "lif1"),
        ("lif1", "fc2"), ("fc2", "out"), ("out", "output"),
    ]  # fmt: skip
    return nir.NIRGraph(nodes, edges, metadata={"dt": dt})


def seal(path: Path) -> None:
    """Make the manifest of the bundle at ``path`` the one that is meant, after a change."""
    digest = hashlib.sha256((path / bundle.MANIFEST).read_bytes()).hexdigest()
    (path / bundle.SEAL).write_text(f"{digest}  {bundle.MANIFEST}\n")


def sensor(made: bundle.Bundle) -> SensorInfo:
    """One that the bundle ``made`` listens to."""
    wanted = made.manifest.input
    units = ("g", "g", "g", "deg/s", "deg/s", "deg/s") if wanted.family == "imu" else ("1",) * len(wanted.channels)
    return SensorInfo(wanted.family, tuple(wanted.channels), units, (0.001,) * len(wanted.channels), wanted.rate_hz)
