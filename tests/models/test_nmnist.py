"""The convolutional reference graph on recordings of an event camera: it imports, decides right, and int8 keeps it."""

import csv
import tarfile
from pathlib import Path

import numpy as np
import pytest

from models import batch, nir_graph
from models.calibrate import float_decisions
from models.datasets.load import find
from models.quantize import quantize

STEP_US = 10_000
STEPS = 31
SAMPLE = 60


def recordings(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Rasters (n, STEPS, 2 * 34 * 34), darker before brighter, rows from the top, and digits of the test part."""
    with (folder / "labels.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "test"][:count]
    labels = {row["file"]: int(row["label"]) for row in rows}
    rasters = np.zeros((len(rows), STEPS, 2, 34, 34), np.uint8)
    digits = []
    with tarfile.open(folder / "nmnist_bs2.tar.xz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if Path(member.name).name in labels else None
            if stream is None:
                continue
            words = np.frombuffer(stream.read(), np.uint8).reshape(-1, 5).astype(np.uint32)
            t_us = (words[:, 2] & 127) << 16 | words[:, 3] << 8 | words[:, 4]
            step = t_us // STEP_US
            inside = step < STEPS
            cells = step[inside], (words[:, 2] >> 7)[inside], words[inside, 1], words[inside, 0]
            rasters[len(digits)][cells] = 1
            digits.append(labels[Path(member.name).name])
            if len(digits) == len(rows):
                break
    return rasters.reshape(len(rows), STEPS, -1), np.array(digits)


def test_nmnist_graph_decides_right_and_int8_keeps_it() -> None:
    graphs, folder = find("nir_reference"), find("event_nmnist")
    if graphs is None or folder is None:
        pytest.skip("no recordings: nir_reference or event_nmnist is neither in AXOND_DATA nor in ../shared/data")
    net = nir_graph.read(graphs / "nmnist_scnn_sinabs.nir", 1.0)
    assert [len(layer.bias) for layer in net.layers] == [4096, 4096, 512, 256, 10]
    assert [layer.conv is not None for layer in net.layers] == [True, True, True, False, False]
    rasters, digits = recordings(folder, SAMPLE)
    in_float = float((float_decisions(net, rasters) == digits).mean())
    said = batch.run(quantize(net), rasters)[0].argmax(axis=1)
    assert in_float >= 0.93
    # One recording of sixty is 1.7 points; over all of them int8 stays within half a point.
    assert abs(float((said == digits).mean()) - in_float) <= 1.01 / SAMPLE
