"""The configuration: one TOML file plus drop-ins, read once, strictly. Every error names file, key path and value."""

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat

from agent.config_files import Files, check_readable, hint, merge, origin, read_all, validated
from agent.errors import ConfigError
from agent.mirrors.table import MirrorTable, check_different, mirror_table
from agent.outbox_group import GROUP_S
from agent.profile import Profile, ProfileName, choose
from agent.uplink_config import UplinkTable
from agent.web.config import HttpTable
from drivers.base import ConfigPath, Driver, DriverConfig, Misconfigured
from drivers.registry import driver_class

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
"""Sensors, pipelines and devices are topic levels as well: nothing that a broker rewrites."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _host_id() -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", platform.node().lower()).strip("-_") or "device"


class DeviceTable(_Table):
    """``[device]``."""

    id: str = Field(default_factory=_host_id, pattern=NAME)
    state_dir: ConfigPath = Path("/var/lib/axond")
    """Outbox, models that the fleet sent, control socket. One agent per folder."""
    region: str = Field(default="default", pattern=NAME)
    profile: ProfileName = "auto"
    """What suits the board where nothing else is said: see ``agent.profile``."""


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
    priority: Literal["raw", "telemetry", "result"] = "result"
    """The class of its results: a full outbox gives up raw first, then telemetry, and thins both before."""
    alarms: list[str] = Field(default=[], max_length=64)
    """Labels whose results are alarms: on the disk at once, and given up last."""


class OutboxTable(_Table):
    """``[outbox]``."""

    max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Of the file with its WAL, and of damaged files that are kept."""
    keep_free_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """With less than that free on its file system the outbox grows no more and gives up results as if it were full."""
    commit_interval_s: float = Field(default=GROUP_S, ge=0.01, le=10)
    """A steady flow of results is written this often; an alarm, and a result after a pause, at once."""
    max_age_h: float | None = Field(default=None, gt=0, le=87600)
    """Older results are given up; None: none is too old."""


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
    mirrors: dict[str, dict[str, Any]] = {}
    log: LogTable = LogTable()
    http: HttpTable = HttpTable()


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
    mirrors: dict[str, MirrorTable]
    profile: Profile
    http: HttpTable

    @property
    def model_folders(self) -> list[Path]:
        """Where models are looked for before the shipped ones."""
        return [self.device.state_dir / "models"]


def load(path: Path, *, whole: bool = True) -> Config:
    """Read ``path`` and the drop-ins ``<path>.d/*.toml`` (later names win). Raises ConfigError.

    ``whole``: the files with secrets that it names must be readable as well, which who only looks need not be allowed.
    """
    return parse(path, read_all(path), whole=whole)


def parse(path: Path, files: Files, *, whole: bool = True) -> Config:
    """The configuration in ``files``, of which ``path`` is the first; ``whole`` as in ``load``. Raises ConfigError."""
    document: dict[str, Any] = {}
    for _, part in files:
        document = merge(document, part)
    parsed = validated(files, "", _Document, document)
    for table, names in (("sensors", parsed.sensors), ("pipelines", parsed.pipelines), ("mirrors", parsed.mirrors)):
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
        _check_uplink(path, parsed.uplink, whole)
    mirrors = {name: mirror_table(files, name, table, whole=whole) for name, table in parsed.mirrors.items()}
    check_different(path, mirrors)
    profile = choose(parsed.device.profile)
    outbox = OutboxTable.model_validate({**profile.outbox, **parsed.outbox.model_dump(exclude_unset=True)})
    return Config(
        *(path, parsed.device, sensors, parsed.pipelines, outbox, parsed.uplink, parsed.log, mirrors, profile),
        http=parsed.http,
    )


def _sensor(files: Files, name: str, table: dict[str, Any]) -> Sensor:
    where = f"sensors.{name}"
    path = origin(files, ("sensors", name))
    settings = dict(table)
    kind = settings.pop("driver", None)
    if not isinstance(kind, str):
        raise ConfigError(f'{path}: {where}.driver: missing; name the kind of sensor, for example "imu.witmotion"')
    try:
        driver = driver_class(kind)
    except Misconfigured as error:
        raise ConfigError(f"{path}: {where}.driver: {error}") from error
    return Sensor(name, kind, driver, validated(files, where, driver.Config, settings))


def _check_pipeline(path: Path, name: str, pipeline: PipelineTable, sensors: list[str]) -> None:
    for i, sensor in enumerate(pipeline.sensors):
        if sensor not in sensors:
            raise ConfigError(
                f"{path}: pipelines.{name}.sensors.{i}: no sensor {sensor!r}; there are {', '.join(sensors) or 'none'}"
                + hint(sensor, sensors)
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


def _check_uplink(path: Path, uplink: UplinkTable, whole: bool) -> None:
    if (uplink.username is None) != (uplink.password_file is None):
        raise ConfigError(f"{path}: uplink: username and password_file go together")
    if (uplink.cert_file is None) != (uplink.key_file is None) or (uplink.cert_file and not uplink.ca_file):
        raise ConfigError(f"{path}: uplink: cert_file, key_file and ca_file go together")
    for key in ("password_file", "ca_file", "cert_file", "key_file"):
        file: Path | None = getattr(uplink, key)
        if file and whole:
            check_readable(path, f"uplink.{key}", file)
