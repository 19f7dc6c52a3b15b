"""Choose a backend: the first one that is there, loads the bundle and answers its golden vectors to the bit."""

from collections.abc import Sequence

import numpy as np

from models.base import Backend, BackendUnavailable, BadModel, ModelError, Outputs, Raster, State, Trace
from models.bundle import Bundle
from models.isolate import Isolated
from models.registry import AUTO_ORDER, make_backend


def verify(backend: Backend, bundle: Bundle, kind: str = "the backend") -> None:
    """Replay the golden vectors on a loaded backend. Raises BadModel on any difference, BackendUnavailable."""
    golden = bundle.golden
    neurons = bundle.network.neurons
    for n, raster in enumerate(golden.rasters):
        trace = Trace.empty(len(raster), neurons)
        potentials = backend.infer(raster, trace=trace).sum(axis=0)
        wrong = int((potentials != golden.potentials[n]).sum())
        # Without a trace a backend may go another, faster way.
        if bundle.manifest.state == "carry":
            outputs, state = _in_parts(backend, raster, neurons)
            end = (*(u[n] for u in golden.u), *(v[n] for v in golden.v), *(spikes[n, -1] for spikes in golden.spikes))
            wrong += sum(int((a != b).sum()) for a, b in zip(state.arrays(), end, strict=True))
        else:
            outputs = backend.infer(raster)
        wrong += int((outputs.sum(axis=0) != golden.potentials[n]).sum())
        for i, spikes in enumerate(golden.spikes):
            wrong += int((trace.spikes[i] != spikes[n]).sum())
            wrong += int((trace.u[i][-1] != golden.u[i][n]).sum()) + int((trace.v[i][-1] != golden.v[i][n]).sum())
        if wrong:
            raise BadModel(
                f"{bundle.path}: {kind} answers golden vector {n} differently in {wrong} cells; "
                "its results would not be those of the other backends"
            )


def _in_parts(backend: Backend, raster: Raster, neurons: tuple[int, ...]) -> tuple[Outputs, State]:
    """The outputs in two calls, the second from the state that the first left, as a stream does it; and the end."""
    state = State.rest(neurons)
    half = len(raster) // 2
    parts = (raster[:half], raster[half:]) if half else (raster,)
    outputs = [backend.infer(part, state) for part in parts]
    return np.concatenate(outputs), state


def order(preference: str | Sequence[str], auto: Sequence[str] = AUTO_ORDER) -> tuple[str, ...]:
    """The kinds to try, in order: ``auto`` stands for those of ``auto``, a kind is that one only, a list is itself."""
    wanted = (preference,) if isinstance(preference, str) else tuple(preference)
    return tuple(dict.fromkeys(kind for one in wanted for kind in (auto if one == "auto" else (one,))))


def load_backend(bundle: Bundle, preference: str | Sequence[str], *, isolate: bool = False) -> tuple[str, Backend]:
    """Load ``bundle`` on the first usable backend of ``preference``; ``isolate``: in a child process.

    Returns the backend's kind and the loaded, verified backend. Raises BackendUnavailable or BadModel, with the
    reasons of all; which of the two says the last of them.
    """
    kinds = order(preference)
    reasons = []
    last: ModelError = BackendUnavailable("no backend is named")
    for kind in kinds:
        try:
            return kind, load_kind(bundle, kind, isolate=isolate)
        except (BackendUnavailable, BadModel) as error:
            reasons.append(f"{kind}: {error}")
            last = error
    if len(kinds) <= 1:
        raise last
    raise type(last)(f"no backend can run {bundle.id}: {'; '.join(reasons)}") from last


def load_kind(bundle: Bundle, kind: str, *, isolate: bool = False) -> Backend:
    """Load ``bundle`` on backend ``kind`` and replay its golden vectors. Raises BackendUnavailable or BadModel."""
    backend = make_backend(kind)
    missing = backend.survey().missing
    if missing:
        raise BackendUnavailable(missing)
    if (isolate or backend.isolate) and not backend.own_process:
        backend = Isolated(kind)
    try:
        spec = backend.load(bundle)
        if (spec.features, spec.classes) != (bundle.network.features, bundle.network.classes):
            raise BadModel(
                f"{bundle.path}: {kind} has another input or output shape than network.npz; build the bundle anew"
            )
        verify(backend, bundle, kind)
    except (BackendUnavailable, BadModel):
        backend.close()
        raise
    return backend


def softmax(
    potentials: "np.ndarray[tuple[int], np.dtype[np.int64]]", temperature: float
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Scores 0..1 that sum to 1."""
    z = (potentials - potentials.max()) / temperature
    e = np.exp(z)
    result: np.ndarray[tuple[int], np.dtype[np.float64]] = e / e.sum()
    return result
