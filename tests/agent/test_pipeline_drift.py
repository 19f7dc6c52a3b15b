"""A pipeline says when its data are no longer like the training: in its state, its health and one line of the log."""

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from agent.checkpoint import Checkpoint
from agent.doctor.configuration import set_up
from agent.doctor.running import look
from agent.mailbox import Mailbox
from agent.pipeline import Pipeline, ReportPolicy
from drivers.packet import Packet
from models.failover import Runner
from tests.models import sounds

EACH = 40
STEP_NS = 2 * 10**9
"""Between sounds: so that each is looked at inside the network, too."""


def heard(tmp_path: Path, *noises_db: float) -> Pipeline:
    """A pipeline that has heard sounds with so much noise, one part after the other, and has ended."""
    bundle = sounds.make(tmp_path)
    mailbox = Mailbox()
    kept = Checkpoint(tmp_path / "kept.npz", bundle)
    pipeline = Pipeline(
        "ear", bundle, Runner("reference"), sounds.INFO, mailbox, ReportPolicy("every"), lambda _: None, kept
    )
    stop = Event()
    thread = Thread(target=pipeline.run, args=(stop, lambda: None))
    thread.start()
    rng = np.random.default_rng(3)
    seq = 0
    for noise_db in noises_db:
        windows, _ = sounds.labelled(rng, EACH, noise_db)
        for i in rng.permutation(len(windows)):
            mailbox.put(
                Packet("mic0", seq, seq * STEP_NS, 10**9 // sounds.RATE_HZ, windows[i].data), time.monotonic_ns()
            )
            seq += 1
        until_s = time.monotonic() + 20
        while pipeline.info.inferences < seq:
            assert time.monotonic() < until_s, "not in time"
            time.sleep(0.01)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    return pipeline


def doctor(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """What ``axond doctor`` says of it."""
    info = pipeline.info
    assert info.drift is not None
    told = {"problem": pipeline.trouble, "incident": info.incident, "incidents": 0, "state": info.state}
    rest: dict[str, Any] = {"up_s": 1.0, "mirrors": {}, "restarts": {}, "ledger": {}}
    status = {"pipelines": {"ear": told | {"drift": asdict(info.drift)}}, **rest}
    _, finding = look(replace(set_up(folder / "axond.toml", named=False), status=status))
    return finding.told()


def test_noise_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "agent.pipeline"):
        pipeline = heard(tmp_path, -40.0, -8.0)
    assert pipeline.info.drift is not None
    assert pipeline.info.drift.drifting
    assert pipeline.trouble is not None and "not as in training" in pipeline.trouble
    found = doctor(pipeline, tmp_path)
    assert (found["id"], found["level"]) == ("agent.drift", "warning")
    assert found["seen"].startswith("pipeline ear: drift: the ")
    said = [record for record in caplog.records if "not as in training" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.WARNING]


def test_it_is_over_when_the_noise_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "agent.pipeline"):
        pipeline = heard(tmp_path, -8.0, -40.0, -40.0)
    assert pipeline.trouble is None
    levels = [record.levelno for record in caplog.records if "training" in record.getMessage()]
    assert levels == [logging.WARNING, logging.INFO]


def test_clean_data_are_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "agent.pipeline"):
        pipeline = heard(tmp_path, -40.0)
    assert pipeline.trouble is None
    assert pipeline.info.drift is not None and pipeline.info.drift.scores
    assert not [record for record in caplog.records if "training" in record.getMessage()]
