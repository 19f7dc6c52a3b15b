"""Akida: the sums over the synapses on the chip, or in its software model; the neurons on the host, in integers.

A layer's input synapses get the whole raster at once; only recurrent ones go step by step. Without a chip the SDK's
software model computes the same sums. No chip has been at hand: what is known of them here comes from the SDK, its
software model and its virtual devices, and how a chip takes turns between the models of a network is not known.
The golden vectors are replayed on a chip as on everything else, so a chip that sums otherwise is refused.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from models.backends.reference import Int64s, Population, run_populations
from models.base import Backend, BackendUnavailable, BadModel, IoSpec, Outputs, Raster, State, Survey, Trace
from models.bundle import Bundle
from models.compile.akida import Product, mapped, not_installed, products, sdk, unsupported
from models.network import WEIGHT_SHIFT, Layer, Network
from models.stages import Wire

_GENERATIONS = ("v1", "v2")


class _Population(Population):
    """One layer, its synapses on Akida."""

    def __init__(self, layer: Layer, into: Product, back: Product | None) -> None:
        super().__init__(layer)
        self._into = into
        self._back = back

    def drive(self, x: npt.NDArray[Any]) -> Int64s:
        return self._into.sums(x) << WEIGHT_SHIFT

    def feedback(self, s: npt.NDArray[Any]) -> Int64s | None:
        return None if self._back is None else self._back.sums(s[np.newaxis])[0] << WEIGHT_SHIFT


class AkidaBackend(Backend):
    """Runs the network on the first chip that is there, else on the software model."""

    isolate: ClassVar[bool] = True
    runs_on: ClassVar[str] = "Akida chips, or their software model"

    def __init__(self) -> None:
        self._populations: list[_Population] = []
        self._wires: tuple[Wire, ...] = ()
        self._neurons: tuple[int, ...] = ()

    @classmethod
    def survey(cls) -> Survey:
        try:
            runtime = f"akida {version('akida')}"
        except PackageNotFoundError:
            return Survey(missing=not_installed())
        # The name of the device that BrainChip's PCIe driver makes (akida_dw_edma).
        return Survey(runtime, tuple(f"Akida on PCIe ({path})" for path in sorted(Path("/dev").glob("akida[0-9]*"))))

    @classmethod
    def unsupported(cls, network: Network) -> str | None:
        return unsupported(network)

    def load(self, bundle: Bundle) -> IoSpec:
        try:
            devices = sdk().devices()
        except RuntimeError as error:
            raise BackendUnavailable(f"akida cannot look for its chips: {error}") from error
        return self.load_network(bundle.network, str(bundle.path), device=devices[0] if devices else None)

    def load_network(
        self, network: Network, where: str, *, generation: str = "v2", device: Any | None = None
    ) -> IoSpec:
        """As ``load``, for a network that is in no bundle (yet): on ``device``, or in the software model of chips of
        ``generation`` v1 or v2."""
        self.close()
        reason = unsupported(network)
        if reason:
            raise BadModel(f"{where}: {reason}")
        if device is not None:
            generation = device.ip_version.name
        if generation not in _GENERATIONS:
            raise BackendUnavailable(f"the Akida chip is of generation {generation!r}; only v1 and v2 can be used")
        populations = []
        for layer in network.layers:
            try:
                both = products(layer, generation) if device is None else mapped(layer, device)
                populations.append(_Population(layer, *both))
            except (RuntimeError, ValueError) as error:
                raise BadModel(f"{where}: Akida cannot take layer {layer.name!r}: {error}") from error
        self._populations, self._wires, self._neurons = populations, network.wires, network.neurons
        return IoSpec(network.features, network.classes)

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        if not self._populations:
            raise BackendUnavailable("Akida has no network loaded")
        now = State.rest(self._neurons) if state is None else state.copy()
        try:
            out = run_populations(self._populations, self._wires, raster, now, trace)
        except (RuntimeError, ValueError) as error:
            raise BackendUnavailable(f"Akida failed in a step: {error}") from error
        if state is not None:
            state.assign(now)
        return out

    def close(self) -> None:
        self._populations = []


BACKEND = AkidaBackend
