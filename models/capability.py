"""What each target can run. Asked of the backends themselves, so that the table and the code are one.

``python -m models.capability`` prints the table that stands in the README.
"""

from collections.abc import Iterator, Sequence

from models.base import Backend, BackendUnavailable
from models.contract_networks import capabilities
from models.network import Network
from models.registry import AUTO_ORDER, backends, make_backend


def targets(network: Network) -> dict[str, str | None]:
    """Per backend, ours and third parties': why it cannot run ``network``, in one sentence; None if it can.

    Whether its runtime or chip is here is another question: ``Backend.survey`` and ``axond accelerators``.
    """
    return {kind: _reason(kind, network) for kind in backends()}


def _reason(kind: str, network: Network) -> str | None:
    try:
        return make_backend(kind).unsupported(network)
    except BackendUnavailable as error:
        return str(error)


def table(kinds: Sequence[str] = AUTO_ORDER) -> list[list[str]]:
    """Rows of text: what is asked for, then the answer of each of ``kinds``. The first row has their names.

    Raises BackendUnavailable for a kind that does not exist or is broken.
    """
    made = {kind: make_backend(kind) for kind in kinds}
    rows = [["", *made]]
    for name, network in capabilities().items():
        rows.append([name, *("no" if backend.unsupported(network) else "yes" for backend in made.values())])
    # Of all, as they answer the same golden vectors cell by cell.
    rows.append(["reset to", *("zero" for _ in made)])
    rows.append(["latency of a layer, in steps", *("0" for _ in made)])
    rows.append(["in a process of its own", *(_process(backend) for backend in made.values())])
    rows.append(["runs on", *(backend.runs_on for backend in made.values())])
    return rows


def _process(backend: Backend) -> str:
    return "always" if backend.isolate or backend.own_process else "if wanted"


def reasons(kinds: Sequence[str] = AUTO_ORDER) -> Iterator[tuple[str, str, str]]:
    """Kind, capability and why it cannot, for every "no" in ``table``."""
    for name, network in capabilities().items():
        for kind in kinds:
            reason = make_backend(kind).unsupported(network)
            if reason:
                yield kind, name, reason


def markdown(kinds: Sequence[str] = AUTO_ORDER) -> str:
    """The table as the README has it."""
    head, *rows = table(kinds)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(markdown(), end="")
