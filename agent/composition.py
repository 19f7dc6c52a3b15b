"""Do the parts of a configuration fit? Shared by ``axond check`` and the start of the agent; opens no device."""

from agent.config import Config
from agent.errors import ConfigError
from models.base import BadModel
from models.bundle import Bundle
from models.registry import backends, make_encoder, make_stream_encoder, open_bundle


def open_bundles(config: Config) -> dict[str, Bundle]:
    """The verified bundle of each pipeline. Raises ConfigError naming file and key path."""
    bundles = {}
    for name, pipeline in config.pipelines.items():
        where = f"{config.path}: pipelines.{name}"
        for kind in pipeline.backend:
            if kind not in ("auto", *backends()):
                raise ConfigError(f"{where}.backend: unknown {kind!r}; there are auto, {', '.join(backends())}")
        try:
            bundle = open_bundle(pipeline.model, config.model_folders)
            make = make_encoder if bundle.manifest.state == "reset" else make_stream_encoder
            make(bundle, config.sensors[pipeline.sensors[0]].make().info())
        except BadModel as error:
            raise ConfigError(f"{where}.model: {error}") from error
        bundles[name] = bundle
    return bundles
