"""A Loihi 2 board, through Intel's extension ``lava-loihi``, which only members of INRC can get.

Not tried on a board: axond's developers have none. The same stepping without the board's adapter is tested in Lava's
simulation, and the golden vectors decide on every load whether the board answers as the reference does.

A board cannot be given spikes that are under way, nor is its memory ours: every request starts from rest, and the
state is read after every step.
"""

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.injector import Injector, PyLoihiInjectorModel

from models.lava_sidecar import graph
from models.lava_sidecar.layout import Shared

STATE_MAX = (1 << 23) - 1
CALM_STEPS = 64
"""A network that still spikes after so many steps without input, its state held at rest, spikes for ever."""


def chip_is_here() -> bool:
    """Is the extension for Loihi installed? As Lava's own ``is_loihi2_available`` asks."""
    try:
        return importlib.util.find_spec("lava.magma.compiler.subcompilers.nc.ncproc_compiler") is not None
    except ModuleNotFoundError:
        return False


def _reach(layer: graph.Arrays) -> int:
    """What the synaptic current of ``layer`` can reach at most."""
    gain = np.abs(layer["w_in"].astype(np.int64)).sum(axis=tuple(range(1, layer["w_in"].ndim))).max()
    if "w_rec" in layer:
        gain += np.abs(layer["w_rec"].astype(np.int64)).sum(axis=1).max()
    return (int(gain) << 7) * 4096 // (4096 - int(layer["k_u"][0]))


class Chip:
    """A network on a board, or with ``board=False`` its twin in the simulation."""

    def __init__(self, stages: graph.Stages, shared: Shared, board: bool = True) -> None:
        self._layers = [(layer, depth) for depth, stage in enumerate(stages) for layer in stage]
        if any(layer["bias"].any() for layer, _ in self._layers):
            raise ValueError("on a Loihi board a network must have no bias: a layer cannot be held at rest with one")
        if any(_reach(layer) > STATE_MAX for layer, _ in self._layers):
            raise ValueError(
                "on a Loihi board a synaptic current must not be able to leave 24 bits; use smaller weights"
            )
        self._shared = shared
        self._latency = len(stages)
        self._inputs = [Injector(shape=(graph.inputs_of(layer),), buffer_size=1) for layer in stages[0]]
        ports = [(self._adapted(one, board), one.out_port.shape[0]) for one in self._inputs]
        self._lifs: list[Any] = []
        for stage in stages:
            after = []
            for layer, heard in graph.wired(stage, ports):
                lif = graph.neurons(layer)
                for port, cells in heard:
                    inward = graph.synapses(layer, cells)
                    port.connect(inward.s_in)
                    inward.a_out.connect(lif.a_in)
                if "w_rec" in layer:
                    back = graph.recurrence(layer)
                    lif.s_out.connect(back.s_in)
                    back.a_out.connect(lif.a_in)
                after.append((lif.s_out, graph.neurons_of(layer)))
                self._lifs.append(lif)
            ports = after
        if board:
            from lava.magma.core.run_configs import Loihi2HwCfg
        configuration = Loihi2HwCfg if board else Loihi2SimCfg
        config = configuration(select_tag="fixed_pt", exception_proc_model_map={Injector: PyLoihiInjectorModel})
        self._inputs[0].create_runtime(run_cfg=config)

    @staticmethod
    def _adapted(source: Injector, board: bool) -> Any:
        """The port of ``source``, as the board takes it."""
        if not board:
            return source.out_port
        from lava.proc.embedded_io.spike import PyToNxAdapter

        adapter = PyToNxAdapter(shape=source.out_port.shape)
        source.out_port.connect(adapter.inp)
        return adapter.out

    def run(self, steps: int) -> None:
        """As ``Simulation.run``, from rest only. Raises ValueError."""
        populations = self._shared.populations
        if any(each.start_u.any() or each.start_v.any() or each.start_s.any() for each in populations):
            raise ValueError("a Loihi board starts from rest only; use the state policy 'reset'")
        self._calm()
        for i in range(steps + self._latency):
            state = self._step(self._shared.raster[i] if i < steps else np.zeros(self._shared.raster.shape[1]))
            for n, (u, v) in enumerate(state):
                t = i - 1 - self._layers[n][1]
                if 0 <= t < steps:
                    self._record(n, t, u, v)

    def _calm(self) -> None:
        """Let the spikes of the last request run out."""
        for _ in range(CALM_STEPS):
            if not any(u.any() or v.any() for u, v in self._step(np.zeros(self._shared.raster.shape[1]))):
                return
            for lif in self._lifs:
                lif.u.set(np.zeros(lif.u.shape, np.int32))
                lif.v.set(np.zeros(lif.v.shape, np.int32))
        raise ValueError("the network on the Loihi board does not come to rest")

    def _step(self, spikes: npt.NDArray[Any]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        first = 0
        for source in self._inputs:
            end = first + source.out_port.shape[0]
            source.send(spikes[first:end].astype(float))
            first = end
        self._inputs[0].run(condition=RunSteps(1))
        return [(lif.u.get().astype(np.int64), lif.v.get().astype(np.int64)) for lif in self._lifs]

    def _record(self, n: int, t: int, u: npt.NDArray[np.int64], v: npt.NDArray[np.int64]) -> None:
        """Write down a step. Which neurons spiked follows from u, from v before and from the threshold."""
        layer, mine = self._layers[n][0], self._shared.populations[n]
        mine.u[t], mine.v[t] = u, v
        if "v_th" in layer:
            before = mine.v[t - 1].astype(np.int64) if t else np.zeros(v.shape, np.int64)
            kept = np.sign(before) * (np.abs(before) * layer["k_v"].astype(np.int64) >> 12)
            reached = np.clip(kept + u, -STATE_MAX, STATE_MAX)
            mine.s[t] = reached > layer["v_th"].astype(np.int64) << 6
