"""Compile the integer network into a TFLite graph of one time step: state in, state out (``tflite_layout``).

All state arithmetic is in int32. Float32 is used where it is exact and faster: for sums of weights, which are below
2^24 times the weights' unit (``network.check``), and for products and quotients of at most 24 bits. All operators are
builtin ones of old versions. Needs the extra ``build``; running the result does not.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from models.compile.tflite_layout import INPUT, STATE, STATE_OUT, Order, input_order, joined, neuron_order
from models.compile.tflite_writer import GraphWriter
from models.network import DECAY_ONE, STATE_MAX, THRESHOLD_SHIFT, WEIGHT_SHIFT, Layer, Network

_NEVER = np.int32(STATE_MAX)
"""The threshold of an integrator: its clipped potential is never above."""


def compile_step(network: Network) -> bytes:
    """The flatbuffer of one step of ``network``; the same network gives the same bytes."""
    return _Compiler(network).run()


class _Compiler:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._g = GraphWriter()
        self._sizes = network.neurons
        self._n = sum(network.neurons)
        self._one = self._g.constant("one", np.array([DECAY_ONE], np.int32))
        self._part = self._g.constant("part", np.array([1 / DECAY_ONE], np.float32))

    def run(self) -> bytes:
        g, layers, n = self._g, self._network.layers, self._n
        x = g.input(INPUT, (1, self._network.features), np.float32)
        state = g.input(STATE, (1, 3 * n), np.int32)
        if self._of_all("k_u").any():
            both, *s = self._split(state, (2 * n, *self._sizes))
            kept = self._split(self._decayed(both, "k_u", "k_v"), (*self._sizes, *self._sizes))
            kept_u, kept_v = kept[: len(layers)], kept[len(layers) :]
        else:
            _, v, *s = self._split(state, (n, n, *self._sizes))
            kept_u, kept_v = [], self._split(self._decayed(v, "k_v"), self._sizes)
        first = self._network.stages[0]
        rasters = self._split(x, tuple(layers[i].inputs for i in first), np.float32)
        currents: list[int] = []
        raw: list[int] = []
        spikes: list[int] = []
        for i, (layer, wire) in enumerate(zip(layers, self._network.wires, strict=True)):
            if wire.sources:
                x = self._joined([spikes[j] for j in wire.sources], dtype=np.float32)
                before = joined([neuron_order(layers[j]) for j in wire.sources])
            else:
                x, before = rasters[first.index(i)], input_order(layer)
            current = self._drive(i, layer, x, before, s[i])
            currents.append(self._ints("ADD", kept_u[i], current) if kept_u else current)
            raw.append(self._ints("ADD", kept_v[i], currents[i]))
            if layer is not layers[-1]:
                fired = self._compare(raw[i], g.constant(f"th{i}", self._threshold(layer)[None]))
                spikes.append(self._cast(fired, np.float32))
        self._leave(currents, raw)
        return g.finish("axond step")

    def _leave(self, currents: list[int], raw: list[int]) -> None:
        """Clip, spike and reset, of all layers at once."""
        g, row = self._g, (1, self._n)
        everything = self._joined(raw)
        # Of two whole tensors MINIMUM and MAXIMUM are sixty times as fast as of a tensor and a scalar.
        v = self._ints("MINIMUM", everything, g.constant("state_max", np.full(row, STATE_MAX, np.int32)))
        v = self._ints("MAXIMUM", v, g.constant("state_min", np.full(row, -STATE_MAX, np.int32)))
        thresholds = np.concatenate([self._threshold(layer) for layer in self._network.layers])
        fired = self._compare(v, g.constant("thresholds", thresholds[None]))
        rest = g.constant("rest", np.zeros(row, np.int32))
        v = g.op("SELECT", [fired, rest, v], np.int32, row, options="SelectOptions")
        g.output(self._joined([*currents, v, self._cast(fired, np.int32)], STATE_OUT))

    def _of_all(self, field: str) -> npt.NDArray[np.int32]:
        """A vector of all layers, in the order of the graph."""
        return np.concatenate([getattr(layer, field)[neuron_order(layer)] for layer in self._network.layers])

    @staticmethod
    def _threshold(layer: Layer) -> npt.NDArray[np.int32]:
        if layer.v_th is None:
            return np.full(layer.neurons, _NEVER)
        return np.left_shift(layer.v_th[neuron_order(layer)], THRESHOLD_SHIFT)

    def _drive(self, i: int, layer: Layer, x: int, before: Order, s: int) -> int:
        """What the synapses of layer ``i`` add to its current; ``before`` is the order of its input ``x``."""
        here = neuron_order(layer)
        if layer.conv is None:
            total = self._product(f"w{i}", layer.w_in[np.ix_(here, before)], x)
        else:
            total = self._convolution(f"w{i}", layer, x, before)
        if layer.w_rec is not None:
            total_rec = self._product(f"r{i}", layer.w_rec[np.ix_(here, here)], self._cast(s, np.float32))
            total = self._g.op("ADD", [total, total_rec], np.float32, self._g.shape(total), options="AddOptions")
        return self._cast(total, np.int32)

    def _weights(self, name: str, weights: npt.NDArray[np.int8]) -> int:
        """int8 in the file, a quarter of float; the runtime turns them into float once, at its first step."""
        constant = self._g.constant(name, np.ascontiguousarray(weights), scale=1 << WEIGHT_SHIFT)
        return self._g.op("DEQUANTIZE", [constant], np.float32, weights.shape, version=2, options="DequantizeOptions")

    def _product(self, name: str, weights: npt.NDArray[np.int8], x: int) -> int:
        return self._g.op(
            "FULLY_CONNECTED", [x, self._weights(name, weights), -1], np.float32, (1, len(weights)),
            options="FullyConnectedOptions",
        )  # fmt: skip

    def _convolution(self, name: str, layer: Layer, x: int, before: Order) -> int:
        g, conv = self._g, layer.conv
        if conv is None:
            raise ValueError(f"layer {layer.name!r} has no convolution")
        channels, height, width = conv.in_shape
        places = np.argsort(before)[input_order(layer)]
        if (places != np.arange(len(places))).any():
            # The neurons before are laid out for another image than this one.
            order = g.constant(f"{name}_order", places.astype(np.int32))
            x = g.op("GATHER", [x, order], np.float32, (1, len(places)), options="GatherOptions", Axis=1)
        x = self._reshaped(x, (1, height, width, channels))
        down, across = conv.padding
        if down or across:
            margins = g.constant(f"{name}_pad", np.array([[0, 0], [down, down], [across, across], [0, 0]], np.int32))
            shape = (1, height + 2 * down, width + 2 * across, channels)
            x = g.op("PAD", [x, margins], np.float32, shape, options="PadOptions")
        out, rows, columns = conv.out_shape(layer.w_in.shape)
        kernel = self._weights(name, layer.w_in.transpose(0, 2, 3, 1))
        sums = g.op(
            "CONV_2D", [x, kernel, g.constant(f"{name}_bias", np.zeros(out, np.float32))], np.float32,
            (1, rows, columns, out), options="Conv2DOptions", Padding=1, StrideH=conv.stride[0], StrideW=conv.stride[1],
        )  # fmt: skip
        return self._reshaped(sums, (1, layer.neurons))

    def _decayed(self, z: int, *fields: str) -> int:
        """``decay(z, k)`` of the packed states ``z``, k being ``fields`` of all layers; then the bias, to v.

        With z = 4096 hi + lo, where both have the sign of z, it is hi k + trunc(lo k / 4096), all in 32 bits. DIV and
        CAST truncate toward zero.
        """
        g = self._g
        k, bias = np.concatenate([self._of_all(field) for field in fields])[None], self._of_all("bias")
        if len(fields) == 1:
            # v is below 2^23, so its quotient is exact in float, where it is much faster.
            hi = self._cast(self._op("MUL", self._cast(z, np.float32), self._part, np.float32), np.int32)
        else:
            hi = self._ints("DIV", z, self._one)
        lo = self._cast(self._ints("SUB", z, self._ints("MUL", hi, self._one)), np.float32)
        share = g.constant("k_share", (k / DECAY_ONE).astype(np.float32))
        rest = self._cast(self._op("MUL", lo, share, np.float32), np.int32)
        if bias.any():
            added = np.zeros_like(k)
            added[0, -len(bias) :] = bias
            rest = self._ints("ADD", rest, g.constant("bias", added))
        return self._ints("ADD", self._ints("MUL", hi, g.constant("k", k)), rest)

    def _op(self, kind: str, a: int, b: int, dtype: npt.DTypeLike) -> int:
        table = {"MINIMUM": "MaximumMinimum", "MAXIMUM": "MaximumMinimum"}.get(kind, kind.capitalize())
        return self._g.op(kind, [a, b], dtype, self._g.shape(a), options=f"{table}Options")

    def _ints(self, kind: str, a: int, b: int) -> int:
        return self._op(kind, a, b, np.int32)

    def _compare(self, a: int, b: int) -> int:
        return self._op("GREATER", a, b, np.bool_)

    def _cast(self, a: int, dtype: npt.DTypeLike) -> int:
        return self._g.op("CAST", [a], dtype, self._g.shape(a))

    def _reshaped(self, a: int, shape: tuple[int, ...]) -> int:
        wanted = self._g.constant(f"shape{a}", np.array(shape, np.int32))
        return self._g.op("RESHAPE", [a, wanted], np.float32, shape)

    def _joined(self, parts: list[int], name: str | None = None, dtype: npt.DTypeLike = np.int32) -> int:
        if len(parts) == 1:
            return parts[0]
        width = sum(self._g.shape(part)[1] for part in parts)
        how: dict[str, Any] = {"name": name} if name else {}
        return self._g.op("CONCATENATION", parts, dtype, (1, width), options="ConcatenationOptions", Axis=1, **how)

    def _split(self, a: int, sizes: tuple[int, ...], dtype: npt.DTypeLike = np.int32) -> list[int]:
        """Pieces of the row ``a``."""
        if len(sizes) == 1:
            return [a]
        constants = [self._g.constant(f"sizes{a}", np.array(sizes, np.int32)), self._axis()]
        first = self._g.op(
            "SPLIT_V", [a, *constants], dtype, *((1, n) for n in sizes), options="SplitVOptions",
            NumSplits=len(sizes),
        )  # fmt: skip
        return list(range(first, first + len(sizes)))

    def _axis(self) -> int:
        return self._g.constant("axis", np.array([1], np.int32))
