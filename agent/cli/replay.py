"""``axond replay``: what would a model have said to this recording."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from agent.cli.command import Command, CommandError, add_json
from drivers.base import Driver, EndOfInput, Misconfigured
from drivers.packet import Packet, SensorInfo
from drivers.registry import driver_class
from models.base import Inference
from models.bundle import Bundle
from models.datasets.recording import LEAD_IN_S, Recording, live_window
from models.registry import open_bundle
from models.select import load_backend
from models.session import Session
from models.stream import Stream, open_session

CLIP_NS = 60 * 10**9
"""A longer recording is no clip."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="WAV or FLAC, or .npz of axond record")
    parser.add_argument("--model", required=True, help="a model's name or a bundle's folder (with a '/')")
    parser.add_argument("--backend", default="auto", help="auto, or one that axond accelerators names (default: auto)")
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.model, [])
    kind, backend = load_backend(bundle, options.backend)
    with closing(backend):
        for path in options.files:
            try:
                driver = _driver(path)
                decided = False
                for decision in _decide(open_session(bundle, backend, driver.info()), driver, bundle):
                    decided = True
                    _print({"file": str(path), **decision, "model": bundle.id, "backend": kind}, options.json)
                if not decided:
                    print(f"axond: {path}: no decision: too short, or too quiet for a window to begin", file=sys.stderr)
            except Misconfigured as error:  # of a file that was named here, not of a configuration
                raise CommandError(str(error)) from error
    return 0


def _print(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(row) + "\n")
    else:
        print(f"{row['file']}  {row['t_s']:9.3f} s  {row['label']:<20} {row['score']:.3f}")


def _driver(path: Path) -> Driver[Any]:
    if path.suffix == ".npz":
        kind, settings = driver_class("replay"), {"path": str(path), "pace": "fast"}
    else:
        if not path.is_file():
            raise CommandError(f"{path}: no such file")
        try:
            found = soundfile.info(path)
        except (soundfile.SoundFileError, OSError) as error:
            raise CommandError(f"{path}: neither WAV, FLAC nor a recording of axond record ({error})") from error
        of_file = {"rate_hz": found.samplerate, "channels": found.channels}
        kind, settings = driver_class("audio.file"), {"path": str(path), "pace": "fast", **of_file}
    return kind(path.stem, kind.Config.model_validate(settings))


def _decide(session: Session | Stream, driver: Driver[Any], bundle: Bundle) -> Iterator[dict[str, Any]]:
    """All decisions; of a clip in which no window is whole, that on the clip between silences, as ``model eval``."""
    first_ns: int | None = None
    clip: list[Packet] | None = [] if isinstance(session, Session) and bundle.windows.mode == "onset" else None
    with closing(driver):
        driver.open()
        while True:
            try:
                packet = driver.read(1.0)
            except EndOfInput:
                break
            if packet is None:
                continue
            first_ns = packet.t0_ns if first_ns is None else first_ns
            if packet.t0_ns - first_ns > CLIP_NS:
                clip = None
            if clip is not None:
                clip.append(packet)
            for inference in session.push(packet):
                clip = None
                yield _row(inference, first_ns)
    if clip and isinstance(session, Session):
        yield from _as_clip(session, clip, driver.info(), bundle)


def _as_clip(session: Session, packets: list[Packet], info: SensorInfo, bundle: Bundle) -> Iterator[dict[str, Any]]:
    data = np.concatenate([packet.data for packet in packets])
    window = live_window(Recording("clip", "", "", data, info), bundle.windows)
    begins_ns = packets[0].t0_ns if info.family == "event_camera" else round(LEAD_IN_S * 1e9)
    for inference in session.infer([] if window is None else [window]):
        yield _row(inference, min(begins_ns, inference.t0_ns))


def _row(inference: Inference, first_ns: int) -> dict[str, Any]:
    start_s = (inference.t0_ns - first_ns) / 1e9
    return {"t_s": round(start_s, 6), "label": inference.label, "score": inference.score, "lost": inference.lost}


COMMAND = Command(
    "replay",
    "run a model over recordings, as fast as possible",
    """Run a model over recordings through the real drivers, windows and backends, as fast as possible.

  axond replay --model spoken-digits digits.wav     (one that is too short for a window stands between silences)
  axond replay --model activity walk.npz --json
""",
    _configure,
    _run,
)
