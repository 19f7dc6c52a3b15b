"""``axond replay``: what would a model have said to this recording."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import soundfile

from agent.cli.command import Command, CommandError, add_json
from drivers.base import Driver, EndOfInput, Misconfigured
from drivers.registry import driver_class
from models.registry import open_bundle
from models.select import load_backend
from models.session import Session
from models.stream import Stream, open_session


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
                for decision in _decide(open_session(bundle, backend, driver.info()), driver):
                    _print({"file": str(path), **decision, "model": bundle.id, "backend": kind}, options.json)
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
        try:
            rate_hz = soundfile.info(path).samplerate
        except (soundfile.SoundFileError, OSError) as error:
            raise CommandError(f"{path}: neither WAV, FLAC nor a recording of axond record ({error})") from error
        kind, settings = driver_class("audio.file"), {"path": str(path), "pace": "fast", "rate_hz": rate_hz}
    return kind(path.stem, kind.Config.model_validate(settings))


def _decide(session: Session | Stream, driver: Driver[Any]) -> Iterator[dict[str, Any]]:
    first_ns: int | None = None
    with closing(driver):
        driver.open()
        while True:
            try:
                packet = driver.read(1.0)
            except EndOfInput:
                return
            if packet is None:
                continue
            first_ns = packet.t0_ns if first_ns is None else first_ns
            for inference in session.push(packet):
                start_s = (inference.t0_ns - first_ns) / 1e9
                yield {
                    "t_s": round(start_s, 6),
                    "label": inference.label,
                    "score": inference.score,
                    "lost": inference.lost,
                }


COMMAND = Command(
    "replay",
    "run a model over recordings, as fast as possible",
    """Run a model over recordings through the real drivers, windows and backends, as fast as possible.

  axond replay --model spoken-digits digits.wav
  axond replay --model activity walk.npz --json
""",
    _configure,
    _run,
)
