"""What every backend must do: the promises of ``models.base.Backend`` as checks."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from models.backends.reference import ReferenceBackend
from models.base import Backend, BackendUnavailable, BadModel, IoSpec, Outputs, State, Survey, Trace
from models.bundle import Bundle
from models.contract_check import Check, Failed, Skipped, demand
from models.contract_networks import random_raster, trials, write_bundle
from models.isolate import Isolated
from models.network import Network
from models.select import verify

STEPS = 40
DENSITIES = (0.02, 0.2, 0.5)


def checks(found: object, kind: str | None) -> list[Check]:
    """Of the backend class ``found``; ``kind``: the name under which axond finds it, if it has one."""
    if not (isinstance(found, type) and issubclass(found, Backend)):
        return [Check("is a subclass of models.base.Backend", partial(_no_backend, found))]
    suite = _Suite(found, kind)
    promises: list[tuple[str, Callable[[], None]]] = [
        ("can be made, and tells what is here, without opening anything", suite.surveys),
        ("says in one sentence what it cannot run, and load refuses that", suite.refuses),
        *((f"gives the spikes and states of the reference: {name}", partial(suite.equals, name)) for name in trials()),
        ("load says what goes in and out", suite.says_what_goes_in_and_out),
        ("the state is the caller's, between calls and between backends", suite.state_is_the_callers),
        ("the answer is the caller's own, the raster is not touched", suite.owns_nothing),
        ("no steps, no spikes and nothing but spikes are rasters too", suite.takes_odd_rasters),
        ("two of them do not disturb each other", suite.two_at_once),
        ("close can be called again, load works again, also with another network", suite.closes),
    ]
    if kind is not None:
        promises.append(("works the same in a process of its own", suite.works_isolated))
    return [Check(name, run) for name, run in promises]


def _no_backend(found: object) -> None:
    raise Failed(f"{found!r} is no subclass of models.base.Backend")


class _Suite:
    def __init__(self, found: type[Backend], kind: str | None) -> None:
        self._class = found
        self._kind = kind

    @contextmanager
    def _bundle(self, network: Network) -> Iterator[Bundle]:
        with tempfile.TemporaryDirectory(prefix="axond-contract-") as folder:
            yield write_bundle(Path(folder) / "made", network)

    @contextmanager
    def _loaded(self, network: Network) -> Iterator[tuple[Backend, Bundle]]:
        self._needs_runtime()
        with self._bundle(network) as bundle:
            backend = self._class()
            try:
                _load(backend, bundle)
                yield backend, bundle
            finally:
                backend.close()

    def _needs_runtime(self) -> None:
        missing = self._class.survey().missing
        if missing:
            raise Skipped(missing)

    def _runnable(self) -> Iterator[Network]:
        """Those that the backend takes, the richest first."""
        return (network for network in reversed(trials().values()) if self._class.unsupported(network) is None)

    def _richest(self) -> Network:
        network = next(self._runnable(), None)
        if network is None:
            raise Failed("it can run none of the networks of this suite")
        return network

    def surveys(self) -> None:
        survey = self._class().survey()
        demand(isinstance(survey, Survey), f"survey() gave {survey!r}, expected a Survey")
        demand(
            survey.missing is None or survey.missing.isprintable(), "survey().missing must be one sentence on one line"
        )

    def refuses(self) -> None:
        for name, network in trials().items():
            reason = self._class.unsupported(network)
            if reason is None:
                continue
            demand(
                isinstance(reason, str) and reason and reason.isprintable(),
                f"unsupported() gave {reason!r} for {name!r}, expected one sentence on one line",
            )
            with self._bundle(network) as bundle:
                backend = self._class()
                try:
                    backend.load(bundle)
                except BadModel as error:
                    demand(reason in str(error), f"load refused {name!r} with {str(error)!r}, not with {reason!r}")
                except BackendUnavailable as error:
                    raise Skipped(str(error)) from error
                else:
                    raise Failed(f"load took {name!r}, of which unsupported() says: {reason}")
                finally:
                    backend.close()
        self._richest()

    def equals(self, name: str) -> None:
        network = trials()[name]
        reason = self._class.unsupported(network)
        if reason is not None:
            raise Skipped(reason)
        rng = np.random.default_rng(7)
        with self._loaded(network) as (backend, bundle):
            verify(backend, bundle)
            for density in DENSITIES:
                raster = random_raster(rng, STEPS, network.features, density)
                mine, theirs = Trace.empty(STEPS, network.neurons), Trace.empty(STEPS, network.neurons)
                state, expected_state = State.rest(network.neurons), State.rest(network.neurons)
                outputs = backend.infer(raster, state, mine)
                expected = _reference(network).infer(raster, expected_state, theirs)
                _same_outputs(outputs, expected, f"a raster with {density:.0%} of spikes")
                cells = mine.differing_cells(theirs)
                demand(cells == 0, f"{cells} cells of the trace differ from the reference")
                _same_state(state, expected_state, "behind the last step")
                _same_outputs(backend.infer(raster), expected, "the same raster without a trace")

    def says_what_goes_in_and_out(self) -> None:
        network = self._richest()
        with self._loaded(network) as (backend, bundle):
            spec = _load(backend, bundle)
        given, expected = (spec.features, spec.classes), (network.features, network.classes)
        demand(given == expected, f"load gave {given} features and classes, expected {expected}")

    def state_is_the_callers(self) -> None:
        network = self._richest()
        raster = random_raster(np.random.default_rng(2), STEPS, network.features, 0.3)
        reference = _reference(network)
        expected_state = State.rest(network.neurons)
        expected = reference.infer(raster, expected_state)
        with self._loaded(network) as (backend, _):
            state = State.rest(network.neurons)
            parts = [backend.infer(raster[:15], state), backend.infer(raster[15:15], state)]
            _same_outputs(backend.infer(raster), expected, "a call without a state, between others")
            parts.append(backend.infer(raster[15:], state))
            _same_outputs(np.concatenate(parts), expected, "a raster in parts")
            _same_state(state, expected_state, "after a raster in parts")
            state = State.rest(network.neurons)
            turns = [backend if t % 2 else reference for t in range(STEPS)]
            mixed = [one.infer(raster[t : t + 1], state) for t, one in enumerate(turns)]
            _same_outputs(np.concatenate(mixed), expected, "steps done by it and by the reference in turns")
            _same_state(state, expected_state, "after steps done by it and by the reference in turns")

    def owns_nothing(self) -> None:
        network = self._richest()
        rng = np.random.default_rng(3)
        raster = random_raster(rng, 2 * STEPS, network.features, 0.3)
        raster.flags.writeable = False
        with self._loaded(network) as (backend, _):
            answer = backend.infer(raster[::2])
            demand(answer.dtype == np.int32, f"the outputs are {answer.dtype}, expected int32")
            kept = answer.copy()
            backend.infer(random_raster(rng, STEPS, network.features, 0.3))
            demand(np.array_equal(answer, kept), "a later call changed the answer of an earlier one")
            _same_outputs(answer, _reference(network).infer(raster[::2]), "every second step of a read-only raster")

    def takes_odd_rasters(self) -> None:
        network = self._richest()
        with self._loaded(network) as (backend, _):
            for what, raster in (
                ("no steps", np.zeros((0, network.features), np.uint8)),
                ("one step", np.ones((1, network.features), np.uint8)),
                ("no spikes", np.zeros((STEPS, network.features), np.uint8)),
                ("nothing but spikes", np.ones((STEPS, network.features), np.uint8)),
            ):
                _same_outputs(backend.infer(raster), _reference(network).infer(raster), what)

    def two_at_once(self) -> None:
        networks = list(self._runnable())
        one, other = networks[0], networks[-1]
        with self._loaded(one) as (first, _), self._loaded(other) as (second, _):
            for backend, network in ((first, one), (second, other), (first, one)):
                raster = random_raster(np.random.default_rng(4), STEPS, network.features, 0.3)
                _same_outputs(backend.infer(raster), _reference(network).infer(raster), "two loaded at once")

    def closes(self) -> None:
        networks = list(self._runnable())
        with self._loaded(networks[0]) as (backend, first), self._bundle(networks[-1]) as second:
            backend.close()
            backend.close()
            for bundle in (first, second):
                _load(backend, bundle)
                verify(backend, bundle)

    def works_isolated(self) -> None:
        if self._kind is None or self._class.own_process:
            raise Skipped("its load starts a process by itself")
        self._needs_runtime()
        network = self._richest()
        raster = random_raster(np.random.default_rng(5), STEPS, network.features, 0.3)
        with self._bundle(network) as bundle:
            backend = Isolated(self._kind)
            try:
                _load(backend, bundle)
                verify(backend, bundle)
                _same_outputs(backend.infer(raster), _reference(network).infer(raster), "a process of its own")
            finally:
                backend.close()


def _load(backend: Backend, bundle: Bundle) -> IoSpec:
    try:
        return backend.load(bundle)
    except BackendUnavailable as error:
        raise Skipped(str(error)) from error


def _reference(network: Network) -> ReferenceBackend:
    made = ReferenceBackend()
    made.load_network(network)
    return made


def _same_outputs(given: Outputs, expected: Outputs, what: str) -> None:
    demand(given.shape == expected.shape, f"{what}: the outputs are {given.shape}, expected {expected.shape}")
    cells = int(np.count_nonzero(given != expected))
    demand(cells == 0, f"{what}: {cells} of {expected.size} cells of the outputs differ from the reference")


def _same_state(given: State, expected: State, when: str) -> None:
    cells = sum(int((a != b).sum()) for a, b in zip(given.arrays(), expected.arrays(), strict=True))
    demand(cells == 0, f"{cells} cells of the state differ from the reference {when}")
