"""The integer network as Lava processes: Dense or Sparse synapses, LIF neurons, in Loihi's fixed point."""

import io
import json
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import numpy.typing as npt
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.models import PyDenseModelBitAcc
from lava.proc.dense.process import Dense
from lava.proc.lif.process import LIF
from lava.proc.sparse.models import PySparseModelBitAcc
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import coo_matrix

from models.lava_sidecar.layout import Shared
from models.lava_sidecar.recorded import RasterSource, RasterSourceModel, RecordedLif, Recurrence

Arrays = dict[str, npt.NDArray[Any]]
"""One layer: ``w_in``, ``k_u``, ``k_v``, ``bias`` and, where it has them, ``w_rec``, ``v_th``, ``conv``; the fields of
``models.network.Layer``."""

THRESHOLD_MAX = (1 << 17) - 1
MANTISSA_MAX = (1 << 12) - 1


Stages = list[list[Arrays]]
"""A network: the layers of each stage, as ``models.network.Network`` has them."""


def read(content: bytes) -> Stages:
    """What ``models.network.save`` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        names = json.loads(arrays["layers"].tobytes())
        number = count()
        return [
            [
                {name.partition(".")[2]: arrays[name] for name in arrays.files if name.startswith(f"{i}.")}
                for i in islice(number, 1 if isinstance(stage, str) else len(stage))
            ]
            for stage in names
        ]


def neurons_of(layer: Arrays) -> int:
    """How many neurons a layer has."""
    return len(layer["k_u"])


def inputs_of(layer: Arrays) -> int:
    """How many inputs a layer has."""
    return int(layer["w_in"].shape[1] if "conv" not in layer else np.prod(layer["conv"][:3]))


def unrolled(kernel: npt.NDArray[np.int8], conv: npt.NDArray[np.int32]) -> Any:
    """A convolution as a sparse (neurons, inputs) matrix of even integers."""
    channels, height, width, stride_h, stride_w, pad_h, pad_w = (int(number) for number in conv)
    rows = (height + 2 * pad_h - kernel.shape[2]) // stride_h + 1
    columns = (width + 2 * pad_w - kernel.shape[3]) // stride_w + 1
    out, inner, dy, dx = np.nonzero(kernel)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1)
    at_y, at_x = y * stride_h + dy - pad_h, x * stride_w + dx - pad_w
    inside = (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
    neuron = (out * rows + y) * columns + x
    source = (inner * height + at_y) * width + at_x
    weights = np.broadcast_to(2 * kernel[out, inner, dy, dx].astype(np.int32), inside.shape)
    shape = (kernel.shape[0] * rows * columns, channels * height * width)
    return coo_matrix((weights[inside], (neuron[inside], source[inside])), shape).tocsr()


def wired(stage: list[Arrays], ports: list[tuple[Any, int]]) -> Iterator[tuple[Arrays, list[tuple[Any, slice]]]]:
    """Each layer of ``stage``, what it hears of ``ports`` (with their widths), and which of its inputs each is."""
    left = iter(ports)
    for layer in stage:
        at = 0
        heard = []
        while at < inputs_of(layer):
            port, width = next(left)
            heard.append((port, slice(at, at + width)))
            at += width
        yield layer, heard


def synapses(layer: Arrays, cells: slice) -> AbstractProcess:
    """The synapses of ``layer`` behind these of its inputs."""
    # The sign mode is stated, because Lava guesses inhibitory for a matrix without positive weights and cuts -256.
    if "conv" in layer:
        return Sparse(weights=unrolled(layer["w_in"], layer["conv"])[:, cells], sign_mode=SignMode.MIXED)
    return Dense(weights=2 * layer["w_in"][:, cells].astype(np.int32), sign_mode=SignMode.MIXED)


def recurrence(layer: Arrays, **parameters: Any) -> AbstractProcess:
    """The recurrent synapses of ``layer``."""
    return Dense(weights=2 * layer["w_rec"].astype(np.int32), sign_mode=SignMode.MIXED, **parameters)


def neurons(layer: Arrays, **parameters: Any) -> AbstractProcess:
    """The neurons of ``layer``, which have all the same decays and threshold (``models.backends.lava.unsupported``)."""
    bias = layer["bias"].astype(np.int64)
    exponent = np.zeros(bias.shape, np.int64)
    for _ in range(7):
        exponent += np.abs(bias >> exponent) > MANTISSA_MAX
    return LIF(
        shape=bias.shape,
        du=4095 - int(layer["k_u"][0]),
        dv=4096 - int(layer["k_v"][0]),
        bias_mant=bias >> exponent,
        bias_exp=exponent,
        vth=int(layer["v_th"][0]) if "v_th" in layer else THRESHOLD_MAX,
        **parameters,
    )


class Simulation:
    """A network in Lava's bit-accurate simulation of Loihi 2, its processes running."""

    def __init__(self, stages: Stages, shared: Shared) -> None:
        models: dict[Any, Any] = {}
        ports: list[tuple[Any, int]] = []
        first, at = 0, 0
        for layer in stages[0]:
            source: Any = RasterSource(inputs_of(layer), shared, first)
            models[source] = RasterSourceModel
            ports.append((source.s_out, inputs_of(layer)))
            first += inputs_of(layer)
        for depth, stage in enumerate(stages):
            after: list[tuple[Any, int]] = []
            for layer, heard in wired(stage, ports):
                parameters = {"shared": shared, "at": at, "depth": depth}
                lif = neurons(layer, integrator="v_th" not in layer, **parameters)
                models[lif] = RecordedLif
                for port, cells in heard:
                    inward = synapses(layer, cells)
                    models[inward] = PySparseModelBitAcc if "conv" in layer else PyDenseModelBitAcc
                    port.connect(inward.s_in)
                    inward.a_out.connect(lif.a_in)
                if "w_rec" in layer:
                    back = recurrence(layer, **parameters)
                    models[back] = Recurrence
                    lif.s_out.connect(back.s_in)
                    back.a_out.connect(lif.a_in)
                after.append((lif.s_out, neurons_of(layer)))
                at += 1
            ports = after
        self._shared = shared
        self._latency = len(stages)
        self._steps_done = 0
        self._source = source
        source.create_runtime(run_cfg=Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models))

    def run(self, steps: int) -> None:
        """Do ``steps`` steps of the network: from the start state and raster in the shared memory to its records."""
        self._shared.clock[:] = self._steps_done, steps
        for population in self._shared.populations:
            population.overflow[:] = 0
        self._source.run(condition=RunSteps(steps + self._latency))
        self._steps_done += steps + self._latency
