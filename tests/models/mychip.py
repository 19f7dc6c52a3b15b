"""My chip for axond: dense networks without recurrent synapses. The chip is numpy here."""

import numpy as np
from pydantic import BaseModel, ConfigDict

from drivers.packet import Packet, SensorInfo
from models.base import (
    Backend,
    BackendUnavailable,
    BadModel,
    IoSpec,
    Outputs,
    Raster,
    State,
    Steps,
    Survey,
    Trace,
    Window,
)
from models.bundle import Bundle
from models.network import STATE_MAX, Layer, Network


class MyChip(Backend):
    isolate = True  # the SDK holds the GIL, or may crash: axond runs it in a child process
    runs_on = "My Chip"

    def __init__(self) -> None:
        self._network: Network | None = None

    @classmethod
    def survey(cls) -> Survey:
        return Survey(runtime=f"numpy {np.__version__}", devices=("My Chip in slot 0",))

    @classmethod
    def unsupported(cls, network: Network) -> str | None:
        for layer in network.layers:
            if layer.w_rec is not None:
                return f"layer {layer.name!r} has recurrent synapses; the chip has none"
            if layer.conv is not None:
                return f"layer {layer.name!r} is a convolution; the chip has dense synapses only"
            if layer.beside:
                return f"layer {layer.name!r} stands beside another one; the chip has one layer behind the other"
        return None

    def load(self, bundle: Bundle) -> IoSpec:
        network = bundle.network
        reason = self.unsupported(network)
        if reason:
            raise BadModel(f"{bundle.path}: {reason}")
        # An SDK is imported here, never at the top, and its absence is a BackendUnavailable that says what to install.
        # Here the chip gets the weights, thresholds and decays; nothing in the bundle was made for it.
        self._network = network
        return IoSpec(network.features, network.classes)

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        network = self._network
        if network is None:
            raise BackendUnavailable("My Chip has no network loaded")
        now = State.rest(network.neurons) if state is None else state.copy()
        out = np.empty((len(raster), network.classes), np.int32)
        for t in range(len(raster)):
            s = raster[t]
            for i, layer in enumerate(network.layers):
                u, v, s = step(layer, s, now.u[i], now.v[i])
                now.u[i][:], now.v[i][:], now.s[i][:] = u, v, s
                if trace is not None:
                    trace.u[i][t], trace.v[i][t], trace.spikes[i][t] = u, v, s
            out[t] = v if layer.v_th is None else s
        if state is not None:
            state.assign(now)  # only now: whatever fails before leaves the caller's state as it was
        return out

    def close(self) -> None:
        self._network = None


def step(layer: Layer, x, u, v):
    """One time step of one layer, in the integers that every backend has."""
    wide = np.int64
    u = decay(u, layer.k_u) + ((layer.w_in.astype(wide) @ x) << 7)
    v = np.clip(decay(v, layer.k_v) + u + layer.bias, -STATE_MAX, STATE_MAX)
    if layer.v_th is None:
        return u, v, np.zeros(layer.neurons, np.uint8)
    s = v > layer.v_th.astype(wide) << 6
    return u, np.where(s, 0, v), s.astype(np.uint8)


def decay(z, k):
    z = z.astype(np.int64)
    return np.sign(z) * ((np.abs(z) * k) >> 12)  # toward zero


class NearConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    near_mm: tuple[float, ...] = (300.0, 1000.0, 3000.0)


class Near:
    """Ranges to spikes: per channel one cell for each distance that the object is nearer than."""

    Config = NearConfig

    def __init__(self, cfg: NearConfig, info: SensorInfo, samples: int) -> None:
        self._near = _Nearness(cfg, info)
        self.shape = (samples, self._near.features)

    def encode(self, window: Window, out: Raster) -> None:
        out[:] = self._near.spikes(window.data)

    def reset(self) -> None:
        pass  # nothing is kept between windows


class NearStream:
    """The same for a stream: one time step per sample."""

    Config = NearConfig

    def __init__(self, cfg: NearConfig, info: SensorInfo) -> None:
        self._near = _Nearness(cfg, info)
        self.features = self._near.features
        self.step_ns = round(1e9 / info.rate_hz)
        self._next_ns: int | None = None

    def push(self, packet: Packet) -> Steps:
        fresh = self._next_ns is None or abs(packet.t0_ns - self._next_ns) > self.step_ns
        raster = self._near.spikes(packet.data)
        self._next_ns = packet.t0_ns + len(raster) * self.step_ns
        return Steps(raster, packet.t0_ns, fresh)


class _Nearness:
    def __init__(self, cfg: NearConfig, info: SensorInfo) -> None:
        if info.family != "ultrasonic":
            raise BadModel(f"encoder near takes rangers, the sensor is {info.family}")
        self._scale = np.asarray(info.scale)
        self._near_mm = np.asarray(cfg.near_mm)
        self.features = len(info.channels) * len(cfg.near_mm)

    def spikes(self, samples) -> Raster:
        near = (samples * self._scale)[:, :, None] < self._near_mm
        return near.reshape(len(samples), -1).astype(np.uint8)


BACKEND = MyChip
ENCODER = Near
STREAM = NearStream
