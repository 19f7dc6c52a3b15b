"""Every encoder of streams keeps the contract of models.base.StreamEncoder, and the suite finds those that do not."""

from dataclasses import replace

import pytest

from drivers.packet import Packet
from models import contract_encoder
from models.base import Steps
from models.contract_check import Check, perform
from models.encoders.audio_delta import AudioDeltaStream
from models.registry import encoders, find_encoder

CASES = [
    (kind, check)
    for kind in encoders("STREAM")
    for check in contract_encoder.stream_checks(find_encoder(kind, "STREAM"), contract_encoder.SETTINGS.get(kind, {}))
]


@pytest.mark.parametrize(("kind", "check"), CASES, ids=[f"{kind}: {check.name}" for kind, check in CASES])
def test_contract(kind: str, check: Check) -> None:
    outcome = perform(check)
    assert outcome.outcome == "passed", f"{kind}: {outcome.reason}"


class _Drops(AudioDeltaStream):
    """What does not fill a step is forgotten."""

    def push(self, packet: Packet) -> Steps:
        steps = super().push(packet)
        self._held = self._held[-1:]
        return steps


class _ArrivalTime(AudioDeltaStream):
    def push(self, packet: Packet) -> Steps:
        return replace(super().push(packet), t0_ns=packet.t0_ns)


class _Wider(AudioDeltaStream):
    def push(self, packet: Packet) -> Steps:
        steps = super().push(packet)
        return replace(steps, raster=steps.raster[:, :-1])


class _AlwaysFresh(AudioDeltaStream):
    def push(self, packet: Packet) -> Steps:
        return replace(super().push(packet), fresh=True)


class _NeverFresh(AudioDeltaStream):
    def push(self, packet: Packet) -> Steps:
        return replace(super().push(packet), fresh=packet.seq == 0)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (_Drops, "packets of any size give the same steps at the same times"),
        (_ArrivalTime, "packets of any size give the same steps at the same times"),
        (_Wider, "steps follow each other without a hole"),
        (_AlwaysFresh, "only the beginning is fresh, until a long gap"),
        (_NeverFresh, "only the beginning is fresh, until a long gap"),
        (object, "has a Config that refuses unknown keys and survives a manifest"),
    ],
)
def test_what_is_wrong_is_found(wrong: type, name: str) -> None:
    check = next(check for check in contract_encoder.stream_checks(wrong, {}) if check.name == name)
    assert perform(check).outcome == "failed"
