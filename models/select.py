"""Choose a backend: the first one that is there, loads the bundle and answers its golden vectors to the bit."""

import numpy as np

from models.base import Backend, BackendUnavailable, BadModel, Trace
from models.bundle import Bundle
from models.registry import AUTO_ORDER, backends, make_backend


def verify(backend: Backend, bundle: Bundle) -> None:
    """Replay the golden vectors on a loaded backend. Raises BadModel on any difference."""
    golden = bundle.golden
    neurons = bundle.network.neurons
    for n, raster in enumerate(golden.rasters):
        trace = Trace.empty(len(raster), neurons)
        potentials = backend.infer(raster, trace=trace).sum(axis=0)
        wrong = int((potentials != golden.potentials[n]).sum())
        for i, spikes in enumerate(golden.spikes):
            wrong += int((trace.spikes[i] != spikes[n]).sum())
            wrong += int((trace.u[i][-1] != golden.u[i][n]).sum()) + int((trace.v[i][-1] != golden.v[i][n]).sum())
        if wrong:
            raise BadModel(
                f"{bundle.path}: {type(backend).__name__} answers golden vector {n} differently in {wrong} cells; "
                "its results would not be those of the other backends"
            )


def load_backend(bundle: Bundle, preference: str) -> tuple[str, Backend]:
    """Load ``bundle`` on backend ``preference``, or on the first usable one for ``auto``.

    Returns the backend's kind and the loaded, verified backend. Raises BackendUnavailable or BadModel.
    """
    if preference != "auto":
        return preference, _load(bundle, preference)
    reasons = []
    for kind in (k for k in AUTO_ORDER if k in backends()):
        try:
            return kind, _load(bundle, kind)
        except (BackendUnavailable, BadModel) as error:
            reasons.append(f"{kind}: {error}")
    raise BadModel(f"no backend can run {bundle.id}: {'; '.join(reasons)}")


def _load(bundle: Bundle, kind: str) -> Backend:
    backend = make_backend(kind)
    try:
        spec = backend.load(bundle)
        if (spec.features, spec.classes) != (bundle.network.features, bundle.network.classes):
            raise BadModel(
                f"{bundle.path}: {kind} has another input or output shape than network.npz; build the bundle anew"
            )
        verify(backend, bundle)
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
