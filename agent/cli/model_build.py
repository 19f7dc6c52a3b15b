"""``axond model build``: a NIR graph becomes a bundle; prints what quantisation costs."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError
from rich.table import Table

from agent.cli.command import CommandError, add_json, cells, console, positive, print_json, whole
from drivers.extras import how_to_install
from drivers.packet import SensorInfo
from models.base import BadModel
from models.bundle import Bundle, Manifest, first_error
from models.datasets.load import load
from models.datasets.recording import IMU_CHANNELS
from models.registry import encoder_for, encoder_settings
from models.window import WindowSpec

if TYPE_CHECKING:
    from models.build import Built, Samples

CHANNELS = {"audio": ("mono",), "imu": IMU_CHANNELS, "event_camera": ("x", "y", "on")}
"""What sensors of a family send unless ``--input`` says otherwise."""
EVENT_RATE_HZ = 1e6
"""Event cameras tell times in microseconds."""
TRAIN, TEST = "train", "test"

DESCRIPTION = """Make a bundle of a NIR graph, as Norse, snnTorch, Sinabs and others export it:

  axond model build net.nir --encoder imu_delta --window 128/64 --labels walk,run,rest --dt 0.02 -o ./mine
  axond model build net.nir --encoder audio_mel:hop=80 --window 8000 --labels words.txt \\
        --calibrate ../shared/data/audio_fsdd -o ./mine

or of a folder with network.nir, recipe.json and CARD.md, as the trainings write it:

  axond model build models/zoo/_build/activity -o ./activity
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="NETWORK.nir", help="a graph, or a folder with network.nir, "
                        "recipe.json and CARD.md (then only --bits and --per apply)")  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument("--encoder", metavar="KIND[:SETTINGS]", help="what makes spikes of samples, with its settings "
                        "as JSON or as key=value,...")  # fmt: skip
    parser.add_argument("--labels", metavar="A,B,...|FILE", help="in the order of the outputs; a file has one a line")
    parser.add_argument("--window", metavar="SAMPLES[/HOP]|JSON", help="how the input is cut; without it the network "
                        "goes on from step to step, never reset")  # fmt: skip
    parser.add_argument("--input", metavar="FAMILY[/CHANNELS[/HZ]]", help="the sensor, for example "
                        "imu/ax,ay,az,gx,gy,gz/50 (default: what the encoder is made for)")  # fmt: skip
    parser.add_argument("--dt", type=positive, metavar="SECONDS", help="the graph's time step, if it does not state it")
    parser.add_argument("--bits", type=int, choices=(8, 4), default=8, help="of the weights (default: 8)")
    parser.add_argument("--per", choices=("layer", "neuron"), default="layer", help="what has a scale and threshold of "
                        "its own (default: layer, which every target can run)")  # fmt: skip
    parser.add_argument("--calibrate", type=Path, metavar="DATA", help=f"recordings as for eval: their {TRAIN!r} part "
                        f"chooses the scales, their {TEST!r} part judges")  # fmt: skip
    parser.add_argument("--name", help="of the model (default: that of BUNDLE)")
    parser.add_argument("--version", default="1.0.0", help="of the model (default: 1.0.0)")
    parser.add_argument("--readout-steps", type=whole(1, 100_000), default=1, metavar="N",
                        help="without --window: a decision is over so many steps (default: 1)")  # fmt: skip
    parser.add_argument("--card", type=Path, metavar="FILE", help="Markdown for CARD.md (default: what is known here)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    try:
        from models import build
    except ImportError as error:
        raise CommandError(f"building needs more packages: {how_to_install('build')} ({error})") from error
    if options.source.is_dir():
        _refuse_with_folder(options)
        _say(build.build(options.source, options.out, options.per, options.bits))
        return 0
    recipe = _recipe(options)
    manifest = build.manifest_of(recipe)
    info = _info(manifest)
    features, classes = build.size(options.source, options.dt)
    if classes != len(manifest.labels):
        raise CommandError(f"--labels names {len(manifest.labels)}, the network has {classes} outputs")
    build.check_encoder(manifest, features, info, "--encoder")
    samples = None if options.calibrate is None else _samples(options.calibrate, manifest, features)
    built = build.build_graph(
        options.source, options.out, recipe, dt_s=options.dt, choice=(options.bits, options.per), samples=samples,
        card=_card(options.card),
    )  # fmt: skip
    if options.json:
        print_json(_facts(built))
    else:
        _print(built, samples)
    return 0


def _refuse_with_folder(options: argparse.Namespace) -> None:
    for name in ("encoder", "labels", "window", "input", "dt", "calibrate", "name", "card"):
        if getattr(options, name) is not None:
            raise CommandError(f"--{name} does not go with a folder, whose recipe.json says it; name the .nir file")


def _recipe(options: argparse.Namespace) -> dict[str, Any]:
    for name in ("encoder", "labels"):
        if getattr(options, name) is None:
            raise CommandError(f"--{name} is needed beside a .nir file; see axond model build --help")
    kind, settings = encoder(options.encoder, "ENCODER" if options.window else "STREAM")
    recipe: dict[str, Any] = {
        "name": options.name or options.out.resolve().name,
        "version": options.version,
        "input": sensor(options.input, kind, settings),
    }
    if options.window:
        recipe["window"] = asdict(window(options.window))
    recipe |= {
        "encoder": {"kind": kind, **settings},
        "labels": labels(options.labels),
        "state": "reset" if options.window else "carry",
    }
    return recipe if options.window else {**recipe, "readout_steps": options.readout_steps}


def encoder(text: str, attribute: str) -> tuple[str, dict[str, Any]]:
    """``KIND``, ``KIND:{json}`` or ``KIND:key=value,...``: the kind and all its settings. Raises CommandError."""
    kind, _, given = text.partition(":")
    if given.lstrip().startswith("{"):
        settings = _json(given, "--encoder")
    else:
        pairs = [part.partition("=") for part in given.split(",") if part]
        settings = {key.strip(): _value(value) for key, _, value in pairs}
    try:
        settings_of = encoder_settings(kind, attribute)
        made: dict[str, Any] = settings_of.model_validate(settings).model_dump(mode="json")
    except BadModel as error:
        hint = "" if attribute == "ENCODER" else "; for windows say --window"
        raise CommandError(f"--encoder: {error}{hint}") from error
    except ValidationError as error:
        raise CommandError(f"--encoder {kind}: {first_error(error)}") from error
    return kind, made


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CommandError(f"{where}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise CommandError(f"{where}: expected a JSON object")
    return found


def labels(text: str) -> list[str]:
    """From the argument, or from the file that it names. Raises CommandError."""
    path = Path(text)
    try:
        if "," not in text and path.is_file():
            return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise CommandError(f"--labels {text}: cannot be read ({error})") from error
    if "," not in text:
        raise CommandError(f"--labels {text}: no such file, and only one label; expected A,B,... or a file of them")
    return [part.strip() for part in text.split(",")]


def window(text: str) -> WindowSpec:
    """``SAMPLES``, ``SAMPLES/HOP`` or a JSON object. Raises CommandError, and BadModel for what cannot cut."""
    try:
        if text.lstrip().startswith("{"):
            spec = WindowSpec(**_json(text, "--window"))
        else:
            samples, _, hop = text.partition("/")
            spec = WindowSpec(mode="time", samples=int(samples), hop=int(hop or samples))
        spec.check()
    except (TypeError, ValueError) as error:
        raise CommandError(f"--window {text}: expected SAMPLES, SAMPLES/HOP or a JSON object ({error})") from error
    return spec


def sensor(text: str | None, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The manifest's ``input``: as given, the rest as the encoder's name and settings tell. Raises CommandError."""
    family, _, rest = (text or "").partition("/")
    channels, _, rate = rest.partition("/")
    family = family or next((known for known in CHANNELS if kind.startswith(known.partition("_")[0] + "_")), "")
    names = channels.split(",") if channels else list(CHANNELS.get(family, ()))
    rate_hz = rate or settings.get("rate_hz") or (EVENT_RATE_HZ if family == "event_camera" else None)
    if not (family and names and rate_hz):
        raise CommandError(f"--input FAMILY/CHANNELS/HZ is needed in full: encoder {kind} does not tell its sensor")
    try:
        return {"family": family, "channels": names, "rate_hz": float(rate_hz)}
    except (TypeError, ValueError) as error:
        raise CommandError(f"--input {text}: {rate_hz!r} is no rate in Hz") from error


def _info(manifest: Manifest) -> SensorInfo:
    """As the sensor will describe itself; the scale does not matter to a check."""
    spec = manifest.sole.input
    units = {"audio": ("FS",), "imu": ("g",) * 3 + ("deg/s",) * 3, "event_camera": ("px", "px", "1")}
    count = len(spec.channels)
    mine = (*units.get(spec.family, ()), *("",) * count)[:count]
    return SensorInfo(spec.family, tuple(spec.channels), mine, (1.0,) * count, spec.rate_hz)


def _samples(folder: Path, manifest: Manifest, features: int) -> "Samples":
    from models.build import Samples
    from models.evaluate import encode

    if manifest.window is None:
        raise CommandError("--calibrate cuts recordings into windows; give --window too, or leave it out")
    parts = []
    for split in (TRAIN, TEST):
        recordings = load(folder, split)
        made = encoder_for(manifest, features, recordings[0].info, str(folder))
        coded = encode(recordings, made, manifest.window)
        unknown = sorted(set(coded.labels) - set(manifest.labels))
        if unknown:
            raise CommandError(f"{folder}: has labels that --labels does not: {', '.join(unknown)}")
        if not coded.heard.any():
            raise CommandError(f"{folder}: in no recording of split {split!r} a window begins")
        truth = np.array([manifest.labels.index(label) for label in coded.labels])
        parts += [coded.rasters[coded.heard], truth[coded.heard]]
    return Samples(*parts)


def _card(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise CommandError(f"--card {path}: cannot be read ({error.strerror})") from error


def _facts(built: "Built") -> dict[str, Any]:
    return {
        "bundle": built.bundle.id,
        "path": str(built.bundle.path),
        "accuracy_float": built.accuracy_float,
        "choices": [
            {
                "bits": r.bits, "per": r.granularity, "accuracy": r.accuracy, "disagree": r.disagree,
                "chosen": r is built.chosen, "problem": r.problem,
                "clips": r.quantized.clips if r.quantized else None,
            }
            for r in built.results
        ],
        "rounding": [asdict(one) for one in built.chosen.quantized.rounding] if built.chosen.quantized else [],
        "reach": [asdict(one) for one in built.reach],
    }  # fmt: skip


def _print(built: "Built", samples: "Samples | None") -> None:
    out = console()
    if samples is not None and built.accuracy_float is not None:
        out.print(f"{len(samples.rasters)} windows to calibrate, {len(samples.truth)} others to judge", markup=False)
        table = Table("weights", "one scale per", "accuracy", "against float", "decides otherwise", "")
        table.add_row(*cells("float", "", f"{built.accuracy_float:.4f}", "", "", ""))
        for r in built.results:
            mark = "<- chosen" if r is built.chosen else ""
            if r.accuracy is None or r.disagree is None:
                table.add_row(*cells(f"int{r.bits}", r.granularity, "-", "-", "-", r.problem or ""))
                continue
            lost = f"{100 * (r.accuracy - built.accuracy_float):+.2f} points"
            table.add_row(
                *cells(f"int{r.bits}", r.granularity, f"{r.accuracy:.4f}", lost, f"{100 * r.disagree:.2f} %", mark)
            )
        out.print(table)
    table = Table("layer", "|u| bound", "seen", "|v| bound", "seen", "weights off", "threshold off", "bias off")
    for reach, loss in zip(built.reach, built.chosen.quantized.rounding if built.chosen.quantized else (), strict=True):
        off = (f"{100 * value:.2f} %" for value in (loss.weights, loss.threshold, loss.bias))
        table.add_row(*cells(reach.layer, reach.u_bound, reach.u_seen, reach.v_bound, reach.v_seen, *off))
    out.print(table)
    out.print("|u| stays below 2^31 for any input; |v| is clipped at 8388607 by the rule, on every target alike")
    _say(built.bundle)


def _say(bundle: Bundle) -> None:
    layers, golden = len(bundle.network.layers), len(bundle.golden.rasters)
    print(f"{bundle.path}: {bundle.id}, {layers} layers, {golden} golden vectors")
