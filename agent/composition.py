"""Do the parts of a configuration fit? Shared by ``axond check`` and the start of the agent; opens no device."""

from agent.config import Config, OutboxTable
from agent.errors import ConfigError
from agent.outbox_store import OutboxLimits
from drivers.base import Misconfigured
from drivers.packet import SensorInfo
from models.base import BadModel
from models.bundle import Bundle
from models.fused import make_fused_encoder
from models.locate.session import LocateSession, LocateSpec, open_locate
from models.registry import backends, describe, fits, make_encoder, make_stream_encoder, open_bundle


def outbox_limits(table: OutboxTable) -> OutboxLimits:
    """What ``[outbox]`` allows."""
    max_age_s = None if table.max_age_h is None else table.max_age_h * 3600
    return OutboxLimits(
        table.max_bytes,
        keep_free_bytes=table.keep_free_bytes,
        max_age_s=max_age_s,
        commit_interval_s=table.commit_interval_s,
    )


def open_bundles(config: Config) -> dict[str, Bundle]:
    """The verified bundle of each pipeline that has a model. Raises ConfigError naming file and key path."""
    bundles = {}
    for name, pipeline in config.pipelines.items():
        if pipeline.model is None:
            continue
        where = f"{config.path}: pipelines.{name}"
        for kind in pipeline.backend:
            if kind not in ("auto", *backends()):
                raise ConfigError(f"{where}.backend: unknown {kind!r}; there are auto, {', '.join(backends())}")
        try:
            bundle = open_bundle(pipeline.model, config.model_folders)
        except BadModel as error:
            raise ConfigError(f"{where}.model: {error}") from error
        except OSError as error:
            raise ConfigError(f"{where}.model: cannot be looked for ({error.strerror}); name a shorter one") from error
        _check_sensors(config, name, bundle)
        if pipeline.report == "detect" and bundle.manifest.detect is None:
            raise ConfigError(
                f'{where}.report: model {pipeline.model!r} has no part "detect" in its manifest; take another report'
            )
        unknown = next((label for label in pipeline.alarms if label not in bundle.manifest.labels), None)
        if unknown is not None:
            labels = ", ".join(bundle.manifest.labels)
            raise ConfigError(f"{where}.alarms: model {bundle.id} has no label {unknown!r}; it has {labels}")
        bundles[name] = bundle
    return bundles


def open_locators(config: Config) -> dict[str, LocateSession]:
    """A session for each pipeline that locates. Raises ConfigError naming file and key path."""
    sessions = {}
    for name, pipeline in config.pipelines.items():
        table = pipeline.locate
        if table is None:
            continue
        geometry_mm = tuple(map(tuple, table.geometry_mm))
        spec = LocateSpec(geometry_mm, table.noise_mm, table.acceleration_mm_s2, table.sound_m_s, table.classes)
        try:
            sessions[name] = open_locate(spec, _info(config, pipeline.sensors[0]))
        except BadModel as error:
            raise ConfigError(f"{config.path}: pipelines.{name}.locate: {error}") from error
    return sessions


def _check_sensors(config: Config, name: str, bundle: Bundle) -> None:
    """Raises ConfigError unless the model takes the pipeline's sensors."""
    infos = [_info(config, sensor) for sensor in sensor_order(config, name, bundle)]
    try:
        if bundle.manifest.inputs is not None:
            make_fused_encoder(bundle, infos)
        elif bundle.manifest.state == "reset":
            make_encoder(bundle, infos[0])
        else:
            make_stream_encoder(bundle, infos[0])
    except BadModel as error:
        raise ConfigError(f"{config.path}: pipelines.{name}.model: {error}") from error


def sensor_order(config: Config, name: str, bundle: Bundle) -> list[str]:
    """The pipeline's sensors in the order of the model's inputs; of several that fit one, the first in the list.

    Raises ConfigError where there are too many or too few, or one of a fused model's inputs has none that fits.
    """
    sensors, parts = config.pipelines[name].sensors, bundle.manifest.parts
    where = f"{config.path}: pipelines.{name}.sensors"
    if len(sensors) != len(parts):
        wanted = ", ".join(describe(p.input.family, p.input.channels, p.input.rate_hz) for p in parts)
        raise ConfigError(
            f"{where}: {', '.join(sensors)}, but model {bundle.manifest.name!r} takes {len(parts)}: {wanted}"
        )
    if len(parts) == 1:
        return list(sensors)
    hurried = next((sensor for sensor in sensors if not config.sensors[sensor].make().live), None)
    if hurried is not None:
        raise ConfigError(
            f"{config.path}: sensors.{hurried}.pace: at full speed it runs ahead of the other sensors of pipeline "
            f"{name!r}; set it to 'real'"
        )
    infos = {sensor: _info(config, sensor) for sensor in sensors}
    order: list[str] = []
    for part in parts:
        chosen = next((s for s in sensors if s not in order and fits(part, infos[s])), None)
        if chosen is None:
            wanted = describe(part.input.family, part.input.channels, part.input.rate_hz)
            given = "; ".join(f"{s} gives {_described(infos[s])}" for s in sensors if s not in order)
            raise ConfigError(f"{where}: none fits input {part.name!r} of model {bundle.id}, {wanted}: {given}")
        order.append(chosen)
    return order


def _info(config: Config, sensor: str) -> SensorInfo:
    """What a sensor will give; of a recording, its file tells. Raises ConfigError."""
    try:
        return config.sensors[sensor].make().info()
    except Misconfigured as error:
        raise ConfigError(f"{config.path}: sensors.{sensor}: {error}") from error


def _described(info: SensorInfo) -> str:
    return describe(info.family, info.channels, info.rate_hz)
