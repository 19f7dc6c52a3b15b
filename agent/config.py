"""The configuration: one TOML file plus drop-ins, read once, strictly. Every error names file, key path and value."""

import platform
import re
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from agent.errors import ConfigError
from agent.topics import ROOT, ROOT_PATTERN
from drivers.base import ConfigPath, Driver, DriverConfig, Misconfigured
from drivers.registry import driver_class

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
"""Sensors, pipelines and devices are topic levels as well: nothing that a broker rewrites."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _host_id() -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", platform.node().lower()).strip("-_") or "device"


Files: TypeAlias = list[tuple[Path, dict[str, Any]]]
"""The main file and the drop-ins, in the order in which they are merged."""


class DeviceTable(_Table):
    """``[device]``."""

    id: str = Field(default_factory=_host_id, pattern=NAME)
    state_dir: ConfigPath = Path("/var/lib/axond")
    """Outbox, models that the fleet sent, control socket. One agent per folder."""
    region: str = Field(default="default", pattern=NAME)


class LocateTable(_Table):
    """``[pipelines.NAME.locate]``: see ``models.locate.session.LocateSpec``."""

    geometry_mm: list[list[FiniteFloat]] = []
    noise_mm: float = Field(default=10.0, ge=0.01, le=1000)
    acceleration_mm_s2: float = Field(default=1000.0, ge=0.01, le=1_000_000)
    sound_m_s: float | None = Field(default=None, ge=100, le=2000)
    classes: ConfigPath | None = None


class PipelineTable(_Table):
    """``[pipelines.NAME]``; the pipeline's name is also the stream of its results."""

    sensors: list[str] = Field(min_length=1, max_length=8)
    """One, or of a model that fuses several as many as it has inputs, in any order."""
    model: str | None = None
    """A bundle; this or ``locate``."""
    locate: LocateTable | None = None
    """Positions or echo ranges of one ultrasonic sensor, in the place of a model."""
    backend: Annotated[list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)] = Field(
        default=["auto"], min_length=1
    )
    """Kinds in the order in which they are tried: the later ones take over when an earlier one fails."""
    isolate: bool = False
    """Run the backend in a process of its own, also where it does not demand that."""
    report: Literal["every", "on_change", "threshold", "detect"] | None = None
    """None: ``detect`` where the model has a rule of its own for that, else ``every``."""
    threshold: float | None = Field(default=None, ge=0, le=1)


class OutboxTable(_Table):
    """``[outbox]``."""

    max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)


class UplinkTable(_Table):
    """``[uplink]``; without this table results stay in the outbox."""

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    """Default: 1883, with TLS (``ca_file``) 8883."""
    topic_root: str = Field(default=ROOT, pattern=f"^{ROOT_PATTERN}$")
    ack: Literal["hub", "broker"] = "hub"
    metrics_interval_s: float = Field(default=60.0, ge=1)
    username: str | None = Field(default=None, min_length=1)
    password_file: ConfigPath | None = None
    ca_file: ConfigPath | None = None
    cert_file: ConfigPath | None = None
    key_file: ConfigPath | None = None


class LogTable(_Table):
    """``[log]``; ``auto`` is text on a terminal, the journal under systemd, JSON lines elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json", "journal"] = "auto"


class _Document(_Table):
    device: DeviceTable = DeviceTable()
    sensors: dict[str, dict[str, Any]] = {}
    pipelines: dict[str, PipelineTable] = {}
    outbox: OutboxTable = OutboxTable()
    uplink: UplinkTable | None = None
    log: LogTable = LogTable()


@dataclass(frozen=True, slots=True)
class Sensor:
    """One configured sensor: the driver's class and its validated settings."""

    name: str
    kind: str
    driver: type[Driver[Any]]
    settings: DriverConfig

    def make(self) -> Driver[Any]:
        """A new driver; touches no hardware."""
        return self.driver(self.name, self.settings)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, validated configuration."""

    path: Path
    device: DeviceTable
    sensors: dict[str, Sensor]
    pipelines: dict[str, PipelineTable]
    outbox: OutboxTable
    uplink: UplinkTable | None
    log: LogTable

    @property
    def model_folders(self) -> list[Path]:
        """Where models are looked for before the shipped ones."""
        return [self.device.state_dir / "models"]


def load(path: Path) -> Config:
    """Read ``path`` and the drop-ins ``<path>.d/*.toml`` (later names win). Raises ConfigError."""
    files = [(file, _read(file)) for file in (path, *_drop_ins(path))]
    document: dict[str, Any] = {}
    for _, part in files:
        document = _merge(document, part)
    try:
        parsed = _Document.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_sentence(files, "", error, _Document)) from error
    for table, names in (("sensors", parsed.sensors), ("pipelines", parsed.pipelines)):
        for name in names:
            if not re.fullmatch(NAME, name):
                shown = name.encode("unicode_escape").decode()
                raise ConfigError(
                    f"{path}: {table}.{shown}: a name has 1 to 63 of a-z, 0-9, '_' and '-', a letter or digit first"
                )
    sensors = {name: _sensor(files, name, table) for name, table in parsed.sensors.items()}
    for name, pipeline in parsed.pipelines.items():
        _check_pipeline(path, name, pipeline, list(sensors))
    if parsed.uplink:
        _check_uplink(path, parsed.uplink)
    return Config(path, parsed.device, sensors, parsed.pipelines, parsed.outbox, parsed.uplink, parsed.log)


def _drop_ins(path: Path) -> list[Path]:
    folder = path.with_name(path.name + ".d")
    try:
        return sorted(file for file in folder.iterdir() if file.suffix == ".toml")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read ({error.strerror})") from error


def _origin(files: Files, keys: tuple[int | str, ...]) -> Path:
    """The file that said last what stands at ``keys``; the main file for what nobody said."""
    for file, document in reversed(files):
        at: Any = document
        for key in keys:
            at = at.get(key, at) if isinstance(at, dict) and key in at else None
            if at is None or not isinstance(at, dict):
                break
        if at is not None:
            return file
    return files[0][0]


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return document
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); write one, or name another with --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _sensor(files: Files, name: str, table: dict[str, Any]) -> Sensor:
    where = f"sensors.{name}"
    path = _origin(files, ("sensors", name))
    settings = dict(table)
    kind = settings.pop("driver", None)
    if not isinstance(kind, str):
        raise ConfigError(f'{path}: {where}.driver: missing; name the kind of sensor, for example "imu.witmotion"')
    try:
        driver = driver_class(kind)
    except Misconfigured as error:
        raise ConfigError(f"{path}: {where}.driver: {error}") from error
    try:
        return Sensor(name, kind, driver, driver.Config.model_validate(settings))
    except ValidationError as error:
        raise ConfigError(_sentence(files, where, error, driver.Config)) from error


def _check_pipeline(path: Path, name: str, pipeline: PipelineTable, sensors: list[str]) -> None:
    for i, sensor in enumerate(pipeline.sensors):
        if sensor not in sensors:
            raise ConfigError(
                f"{path}: pipelines.{name}.sensors.{i}: no sensor {sensor!r}; there are {', '.join(sensors) or 'none'}"
                + _hint(sensor, sensors)
            )
        if sensor in pipeline.sensors[:i]:
            raise ConfigError(f"{path}: pipelines.{name}.sensors.{i}: {sensor!r} is there twice")
    _check_locate(path, name, pipeline)
    if pipeline.report != "detect" and (pipeline.report == "threshold") != (pipeline.threshold is not None):
        raise ConfigError(
            f'{path}: pipelines.{name}.threshold: needed with report = "threshold", and possible with "detect" only'
        )


def _check_locate(path: Path, name: str, pipeline: PipelineTable) -> None:
    where = f"{path}: pipelines.{name}"
    if pipeline.model is None and pipeline.locate is None:
        raise ConfigError(f"{where}.model: missing; name a model, or locate an object with a table locate")
    if pipeline.locate is None:
        return
    if pipeline.model is not None:
        raise ConfigError(
            f"{where}.locate: it stands in the place of a model, and model is {pipeline.model!r}; one only"
        )
    if len(pipeline.sensors) != 1:
        raise ConfigError(f"{where}.sensors: {', '.join(pipeline.sensors)}, but locate takes one sensor")
    if pipeline.isolate or pipeline.backend != ["auto"] or pipeline.report == "detect":
        raise ConfigError(f'{where}: backend, isolate and report = "detect" are for models, not for locate')


def _check_uplink(path: Path, uplink: UplinkTable) -> None:
    if (uplink.username is None) != (uplink.password_file is None):
        raise ConfigError(f"{path}: uplink: username and password_file go together")
    if (uplink.cert_file is None) != (uplink.key_file is None) or (uplink.cert_file and not uplink.ca_file):
        raise ConfigError(f"{path}: uplink: cert_file, key_file and ca_file go together")
    for key in ("password_file", "ca_file", "cert_file", "key_file"):
        file: Path | None = getattr(uplink, key)
        try:
            if file:
                file.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{path}: uplink.{key}: {file} cannot be read ({error.strerror})") from error


def _sentence(files: Files, prefix: str, error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem as one sentence with its key path and value."""
    problem = error.errors()[0]
    path = _origin(files, (*(prefix.split(".") if prefix else ()), *problem["loc"]))
    keys = [prefix, *map(str, problem["loc"])]
    where = ".".join(key for key in keys if key)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, problem["loc"][:-1])
        name = str(problem["loc"][-1])
        return f"{path}: {where}: unknown key; known here: {', '.join(known)}{_hint(name, known)}"
    if problem["type"] == "missing":
        return f"{path}: {where}: missing"
    return f"{path}: {where}: {problem['msg']}; found {problem['input']!r}"


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at ``loc`` below ``model``."""
    for key in loc:
        field = model.model_fields.get(str(key))
        inner = field.annotation if field else None
        candidates = [inner, *getattr(inner, "__args__", ())]
        tables = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if tables:
            model = tables[0]
    return list(model.model_fields)


def _hint(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
