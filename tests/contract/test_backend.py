"""Every backend keeps the contract of models.base.Backend, and the suite that says so finds those that do not."""

from pathlib import Path

import numpy as np
import pytest

from models import contract_backend
from models.backends.reference import ReferenceBackend
from models.base import BackendUnavailable, BadModel, IoSpec, Outputs, Raster, State, Survey, Trace
from models.bundle import Bundle
from models.contract_check import Check, perform
from models.contract_networks import loud_network, random_raster, trials
from models.network import STATE_MAX, Network
from models.registry import backends, find_backend

CASES = [(kind, check) for kind in backends() for check in contract_backend.checks(find_backend(kind), kind)]


@pytest.mark.parametrize(("kind", "check"), CASES, ids=[f"{kind}: {check.name}" for kind, check in CASES])
def test_contract(kind: str, check: Check) -> None:
    outcome = perform(check)
    if outcome.outcome == "skipped":
        pytest.skip(f"{kind}: {outcome.reason}")
    assert outcome.outcome == "passed", outcome.reason


class _Wrong(ReferenceBackend):
    """As the reference, but for one thing."""


class _Decays(_Wrong):
    def load(self, bundle: Bundle) -> IoSpec:
        spec = super().load(bundle)
        for population in self._populations:
            population._k_v = population._k_v - 1
        return spec


class _KeepsState(_Wrong):
    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        if state is None:
            self._own = getattr(self, "_own", State.rest(self._neurons))
        return super().infer(raster, state or self._own, trace)


class _ForgetsState(_Wrong):
    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        return super().infer(raster, None, trace)


class _SharesAnswers(_Wrong):
    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        out = super().infer(raster, state, trace)
        shape = getattr(self, "_out", out[:0]).shape
        self._out = self._out if shape == out.shape else out
        self._out[:] = out
        return self._out


class _WritesRaster(_Wrong):
    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        out = super().infer(raster, state, trace)
        raster[:] = 0
        return out


class _TracesNothing(_Wrong):
    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        return super().infer(raster, state)


class _NoSteps(_Wrong):
    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        if not len(raster):
            raise ValueError("zero-size array")
        return super().infer(raster, state, trace)


class _SaysNothing(_Wrong):
    @classmethod
    def unsupported(cls, network: Network) -> str | None:
        return None if network.layers[-1].conv is None and len(network.layers) == 2 else "two layers are the most"


class _SaysTooMuch(_SaysNothing):
    @classmethod
    def unsupported(cls, network: Network) -> str | None:
        return "three layers are too many" if len(network.layers) > 2 else None

    def load(self, bundle: Bundle) -> IoSpec:
        if len(bundle.network.layers) > 2:
            raise BadModel("for another reason\nor two")
        return super().load(bundle)


class _OneForAll(_Wrong):
    shared: list[ReferenceBackend] = []  # noqa: RUF012  # this is what is wrong with it

    def load(self, bundle: Bundle) -> IoSpec:
        spec = super().load(bundle)
        self.shared[:] = [ReferenceBackend()]
        self.shared[0].load(bundle)
        return spec

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        return self.shared[0].infer(raster, state, trace)


class _ClosesOnce(_Wrong):
    def close(self) -> None:
        if not self._populations:
            raise RuntimeError("closed already")
        super().close()


class _Features(_Wrong):
    def load(self, bundle: Bundle) -> IoSpec:
        spec = super().load(bundle)
        return IoSpec(spec.classes, spec.features)


class _NoSentence(_Wrong):
    @classmethod
    def survey(cls) -> Survey:
        return Survey(missing="no\nsentence")


class _Clips(_Wrong):
    """As a runtime whose integers saturate elsewhere."""

    def infer(self, raster: Raster, state: State | None = None, trace: Trace | None = None) -> Outputs:
        out = super().infer(raster, state, trace)
        for array in (*(trace.v if trace else ()), *(state.v if state else ())):
            np.clip(array, 1 - STATE_MAX, STATE_MAX, out=array)
        return out


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (_Decays, "gives the spikes and states of the reference: 8-bit weights"),
        (_KeepsState, "gives the spikes and states of the reference: 8-bit weights"),
        (_ForgetsState, "the state is the caller's, between calls and between backends"),
        (_SharesAnswers, "the answer is the caller's own, the raster is not touched"),
        (_WritesRaster, "the answer is the caller's own, the raster is not touched"),
        (_TracesNothing, "gives the spikes and states of the reference: recurrent synapses"),
        (_NoSteps, "no steps, no spikes and nothing but spikes are rasters too"),
        (_SaysNothing, "says in one sentence what it cannot run, and load refuses that"),
        (_SaysTooMuch, "says in one sentence what it cannot run, and load refuses that"),
        (_OneForAll, "two of them do not disturb each other"),
        (_ClosesOnce, "close can be called again, load works again, also with another network"),
        (_Features, "load says what goes in and out"),
        (_NoSentence, "can be made, and tells what is here, without opening anything"),
        (_Clips, "gives the spikes and states of the reference: potentials at their limits"),
    ],
)
def test_what_is_wrong_is_found(wrong: type[ReferenceBackend], name: str) -> None:
    check = next(check for check in contract_backend.checks(wrong, None) if check.name == name)
    outcome = perform(check)
    assert outcome.outcome == "failed"
    assert outcome.reason


def test_what_is_no_backend_is_one_failure() -> None:
    (check,) = contract_backend.checks(Path, None)
    assert "is no subclass of models.base.Backend" in perform(check).reason


def test_what_is_not_here_is_skipped() -> None:
    class Absent(ReferenceBackend):
        @classmethod
        def survey(cls) -> Survey:
            return Survey(missing="the chip is in the post")

        def load(self, bundle: Bundle) -> IoSpec:
            raise BackendUnavailable("the chip is in the post")

    outcomes = [perform(check) for check in contract_backend.checks(Absent, None)]
    assert {outcome.outcome for outcome in outcomes} == {"passed", "skipped"}
    assert {outcome.reason for outcome in outcomes if outcome.outcome == "skipped"} == {"the chip is in the post"}


def _busy(network: Network) -> list[bool]:
    backend = ReferenceBackend()
    backend.load_network(network)
    raster = random_raster(np.random.default_rng(7), contract_backend.STEPS, network.features, 0.5)
    trace = Trace.empty(len(raster), network.neurons)
    backend.infer(raster, trace=trace)
    return [
        layer.v_th is None or bool(spikes.any()) for layer, spikes in zip(network.layers, trace.spikes, strict=True)
    ]


@pytest.mark.parametrize("name", trials())
def test_in_every_trial_every_layer_spikes(name: str) -> None:
    assert all(_busy(trials()[name]))


def test_the_loud_trial_reaches_both_limits() -> None:
    network = loud_network()
    backend = ReferenceBackend()
    backend.load_network(network)
    raster = random_raster(np.random.default_rng(7), contract_backend.STEPS, network.features, 0.5)
    trace = Trace.empty(len(raster), network.neurons)
    backend.infer(raster, trace=trace)
    assert trace.v[0].min() == -STATE_MAX
    assert trace.spikes[0].any()
