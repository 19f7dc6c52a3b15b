"""``axond model bench``: the time of a step on every backend that is here."""

import argparse
import time

import numpy as np
from rich.table import Table

from agent.cli.command import add_json, cells, console, positive, print_json
from models.base import Backend, BackendUnavailable, BadModel, Raster
from models.bundle import Bundle
from models.registry import backends, open_bundle
from models.select import load_kind

UNPUBLISHED = frozenset({"akida"})
"""Their licences forbid to publish results, so none is made."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--seconds", type=positive, default=2.0, help="for each backend (default: 2)")


def run(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle, [])
    rows, steps = measure(bundle, options.seconds), bundle.golden.rasters.shape[1]
    if options.json:
        print_json({"bundle": bundle.id, "steps": steps, "us_per_step": rows})
        return 0
    table = Table("backend", "us per step", "why not")
    for kind, row in rows.items():
        table.add_row(*cells(kind, *((f"{row:.2f}", "") if isinstance(row, float) else ("-", row))))
    console().print(table)
    print(f"{bundle.id}: median over whole rasters of {steps} steps, density {_raster(bundle).mean():.2f}")
    return 0


def measure(bundle: Bundle, seconds: float) -> dict[str, float | str]:
    """The time of a step on each backend, in microseconds, or why there is none."""
    rows: dict[str, float | str] = {}
    for kind in backends():
        if kind in UNPUBLISHED:
            rows[kind] = "not measured: its licence forbids it"
            continue
        try:
            backend = load_kind(bundle, kind)
        except (BackendUnavailable, BadModel) as error:
            rows[kind] = str(error)
            continue
        try:
            rows[kind] = round(step_us(backend, _raster(bundle), seconds), 2)
        finally:
            backend.close()
    return rows


def _raster(bundle: Bundle) -> Raster:
    rasters = bundle.golden.rasters
    return np.ascontiguousarray(rasters[len(rasters) // 2])


def step_us(backend: Backend, raster: Raster, seconds: float) -> float:
    """Median time of a step, in microseconds, over ``seconds`` of whole rasters."""
    backend.infer(raster)
    took_ns: list[int] = []
    end_ns = time.perf_counter_ns() + int(seconds * 1e9)
    while not took_ns or time.perf_counter_ns() < end_ns:
        start_ns = time.perf_counter_ns()
        backend.infer(raster)
        took_ns.append(time.perf_counter_ns() - start_ns)
    return float(np.median(took_ns)) / len(raster) / 1e3
