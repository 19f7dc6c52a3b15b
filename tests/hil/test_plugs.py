"""Who pulls the demo's plugs: in turn, and puts each back."""

import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hil.demo import plugs
from hil.emulators.serial_pcm import SerialPcmEmulator


def test_each_sensor_is_away_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugs, "WHOLE_S", 0.06)
    monkeypatch.setattr(plugs, "GONE_S", 0.03)
    silence = np.zeros(8000, np.int16)
    names = ("cam0", "mic0")
    with (
        SerialPcmEmulator(silence, 8000, tmp_path / "cam0") as first,
        SerialPcmEmulator(silence, 8000, tmp_path / "mic0") as second,
    ):
        puller = plugs.Plugs({"cam0": first, "mic0": second})
        seen = set()
        deadline_s = time.monotonic() + 20
        while len(puller.phases) < 5 and time.monotonic() < deadline_s:
            puller.step()
            seen.add(tuple(name for name in names if not os.path.lexists(tmp_path / name)))
        phases = puller.finish()
    assert seen == {(), ("cam0",), ("mic0",)}
    assert [phase.gone for phase in phases] == ["", "cam0", "", "mic0", "", "cam0"]
    assert all(a.stop_ns == b.start_ns for a, b in pairwise(phases))


def test_without_sensors_nothing_happens() -> None:
    puller = plugs.Plugs({})
    puller.step()
    assert puller.finish() == []
