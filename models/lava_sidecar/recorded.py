"""Lava's own bit-accurate process models, with the shared memory around them.

The arithmetic is Lava's, not one line of it is here; these models only take the state before the first step of a
request from the shared memory and write down what became of it after each. Every ``Dense`` hands on its sums one step
later, so a layer of stage n does in Lava's step i what the network does in step ``i - 1 - n``; before and after, it
idles.
"""

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.dense.models import PyDenseModelBitAcc
from lava.proc.dense.process import Dense
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.lif.process import LIF

from models.lava_sidecar.layout import Shared


class RasterSource(AbstractProcess):  # type: ignore[misc]  # Lava has no types
    """The input spikes of a request: ``features`` of the raster, from number ``start`` on."""

    def __init__(self, features: int, shared: Shared, start: int) -> None:
        super().__init__(shared=shared, cells=slice(start, start + features))
        self.s_out = OutPort(shape=(features,))


@implements(proc=RasterSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class RasterSourceModel(PyLoihiProcessModel):  # type: ignore[misc]  # Lava has no types
    """Sends a row of the raster in each step, and zeros behind it."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        shared: Shared = self.proc_params["shared"]
        first, steps = shared.clock
        i = self.time_step - 1 - first
        row = shared.raster[i] if i < steps else np.zeros(shared.raster.shape[1])
        self.s_out.send(row[self.proc_params["cells"]])


def _step(model: Any) -> tuple[int, int]:
    """The network's step that the model's layer is about to do, and the steps of the request."""
    shared: Shared = model.proc_params["shared"]
    first, steps = shared.clock
    return int(model.time_step - 2 - first - model.proc_params["depth"]), int(steps)


@implements(proc=LIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class RecordedLif(PyLifModelBitAcc):  # type: ignore[misc]  # Lava has no types
    """One population; with ``integrator`` it never spikes."""

    def run_spk(self) -> None:
        mine = self.proc_params["shared"].populations[self.proc_params["at"]]
        t, steps = _step(self)
        if t == 0:
            self.u[:], self.v[:] = mine.start_u, mine.start_v
        super().run_spk()
        if 0 <= t < steps:
            mine.u[t], mine.v[t], mine.s[t] = self.u, self.v, self.s_out_buff

    def subthr_dynamics(self, activation_in: Any) -> None:
        u = self.u.astype(np.int64)
        super().subthr_dynamics(activation_in)
        drive = activation_in.astype(np.int64) << self.act_shift
        if np.abs(u).max() + np.abs(drive).max() >= self.max_uv_val:
            kept = np.abs(u) * (self.decay_unity - self.du - self.ds_offset) >> self.decay_shift
            exact = np.sign(u) * kept + drive
            t, steps = _step(self)
            if 0 <= t < steps and (exact != self.u).any():
                self.proc_params["shared"].populations[self.proc_params["at"]].overflow[0] = 1

    def spiking_activation(self) -> Any:
        if self.proc_params["integrator"]:
            return np.zeros(self.v.shape, bool)
        return super().spiking_activation()


@implements(proc=Dense, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class Recurrence(PyDenseModelBitAcc):  # type: ignore[misc]  # Lava has no types
    """Recurrent synapses, whose sums of the step before the first are due in the first."""

    def run_spk(self) -> None:
        t, _ = _step(self)
        if t == 0:
            mine = self.proc_params["shared"].populations[self.proc_params["at"]]
            self.a_buff = self.weights @ mine.start_s.astype(np.int32)
        super().run_spk()
