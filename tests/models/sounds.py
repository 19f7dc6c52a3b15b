"""A small model of made sounds, with a readout fitted to them, for tests of what surrounds a model."""

import json
from dataclasses import asdict
from pathlib import Path

import nir
import numpy as np
import numpy.typing as npt

from models import nir_graph, statistics
from models.base import Window
from models.build import build
from models.bundle import Bundle
from models.calibrate import calibrate, temperature
from models.datasets.recording import Recording, audio_info, live_window
from models.network import write_npz
from models.registry import make_encoder
from models.window import WindowSpec
from tests.models import networks

RATE_HZ = 8000
INFO = audio_info(RATE_HZ)
SPEC = WindowSpec(mode="time", samples=1600, hop=1600)
CENTRE_HZ = {"low": 300.0, "middle": 800.0, "high": 1700.0}
HIDDEN = 64


def sound(centre_hz: float, rng: np.random.Generator, noise_db: float = -40.0) -> npt.NDArray[np.int16]:
    """A second of a band of noise around a frequency, at a random level, with white noise below it."""
    count = RATE_HZ
    hz = np.fft.rfftfreq(count, 1 / RATE_HZ)
    spectrum = np.fft.rfft(rng.normal(size=count))
    width_hz = centre_hz * rng.uniform(0.15, 0.25)
    band = np.fft.irfft(spectrum * np.exp(-0.5 * ((hz - centre_hz * rng.uniform(0.95, 1.05)) / width_hz) ** 2), count)
    band *= 10 ** (rng.uniform(-25, -12) / 20) * 32768 / band.std()
    return (
        np.rint(band + rng.normal(size=count) * band.std() * 10 ** (noise_db / 20)).clip(-32768, 32767).astype(np.int16)
    )


def window(wave: npt.NDArray[np.int16]) -> Window:
    found = live_window(Recording("made", "", "", wave[:, None], INFO), SPEC)
    assert found is not None
    return found


def rasters(bundle: Bundle, windows: list[Window]) -> npt.NDArray[np.uint8]:
    encoder = make_encoder(bundle, INFO)
    made = np.zeros((len(windows), *encoder.shape), np.uint8)
    for one, raster in zip(windows, made, strict=True):
        encoder.encode(one, raster)
    return made


def labelled(
    rng: np.random.Generator, each: int, noise_db: float = -40.0
) -> tuple[list[Window], npt.NDArray[np.int64]]:
    """``each`` windows of every label, and their classes."""
    windows = [window(sound(hz, rng, noise_db)) for hz in CENTRE_HZ.values() for _ in range(each)]
    return windows, np.repeat(np.arange(len(CENTRE_HZ)), each)


def make(folder: Path) -> Bundle:
    """The bundle ``folder/sounds`` with statistics; it is right on nearly all of ``labelled``."""
    source = folder / "source"
    source.mkdir()
    recipe = {
        "name": "sounds",
        "version": "1.0.0",
        "input": {"family": "audio", "channels": list(INFO.channels), "rate_hz": INFO.rate_hz},
        "window": asdict(SPEC),
        "encoder": {"kind": "audio_mel"},
        "labels": list(CENTRE_HZ),
        "state": "reset",
        "temperature": 1.0,
    }
    graph = networks.nir_graph(np.random.default_rng(5), 120, HIDDEN, len(CENTRE_HZ))
    graph.nodes["fc1"] = nir.Linear(np.random.default_rng(6).normal(0, 0.15, (HIDDEN, 120)))
    (source / "CARD.md").write_text("# sounds 1.0.0\n")
    _write(source, graph, recipe)
    windows, truth = labelled(np.random.default_rng(7), 80)
    first = build(source, folder / "first")
    coded = rasters(first, windows)
    phi = statistics.look(first.network, coded).phi
    wanted = np.eye(len(CENTRE_HZ))[truth] - 1 / len(CENTRE_HZ)
    ridge = phi.T @ phi + 0.05 * np.eye(HIDDEN)
    graph.nodes["fc2"] = nir.Linear(np.linalg.solve(ridge, phi.T @ wanted).T)
    _write(source, graph, recipe)
    network = calibrate(nir_graph.read(source / "network.nir"), "layer", 8).network
    fitted = temperature(statistics.look(network, coded).potentials, truth)
    _write(source, graph, {**recipe, "temperature": round(fitted, 3)})
    found = statistics.collect(network, coded, truth, len(CENTRE_HZ), fitted)
    (source / statistics.FILE).write_bytes(write_npz(found))
    return build(source, folder / "sounds")


def _write(source: Path, graph: nir.NIRGraph, recipe: dict[str, object]) -> None:
    nir.write(str(source / "network.nir"), graph)
    (source / "recipe.json").write_text(json.dumps(recipe))
