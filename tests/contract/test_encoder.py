"""Every encoder in models/encoders keeps the contract of models.base.Encoder. A new file there is found by itself."""

import importlib
from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError

from drivers.packet import SensorInfo
from models.base import BadModel, Window
from models.datasets import IMU_INFO, audio_info
from models.registry import encoders as encoder_kinds

Make = Callable[[np.random.Generator], Window]
MIC = audio_info(8000.0)
MIC_16K = audio_info(16_000.0)


def speech_window(rng: np.random.Generator) -> Window:
    wave = rng.normal(0, 2000, 8000) * np.hanning(8000)
    return Window(0, 125_000, np.rint(wave).astype(np.int16)[:, None], MIC)


def sound_window(rng: np.random.Generator) -> Window:
    return Window(0, 62_500, speech_window(rng).data, MIC_16K)


def motion_window(rng: np.random.Generator) -> Window:
    data = rng.normal(0, 800, (128, 6)).cumsum(axis=0) / 4
    return Window(0, 20_000_000, np.rint(data).clip(-32768, 32767).astype(np.int16), IMU_INFO)


WINDOWS: dict[str, Make] = {"speech": speech_window, "sound": sound_window, "imu": motion_window}
NAMES = encoder_kinds("ENCODER")


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(kind: str) -> tuple[type, Make, object]:
    """The encoder's class, a maker of windows of the family that it takes, and the encoder with its default config."""
    encoder_class = importlib.import_module(f"models.encoders.{kind}").ENCODER
    for make in WINDOWS.values():
        window = make(np.random.default_rng(0))
        try:
            return encoder_class, make, encoder_class(encoder_class.Config(), window.info, len(window.data))
        except BadModel:
            continue
    pytest.fail(f"encoder {kind} takes none of the families {', '.join(WINDOWS)}")


def test_every_cell_is_written_with_zero_or_one(kind: str) -> None:
    _, make, encoder = made(kind)
    out = np.full(encoder.shape, 77, np.uint8)  # type: ignore[attr-defined]
    encoder.encode(make(np.random.default_rng(1)), out)  # type: ignore[attr-defined]
    assert set(np.unique(out)) == {0, 1}
    assert len(encoder.shape) == 2  # type: ignore[attr-defined]


def test_the_same_window_gives_the_same_raster_whatever_came_before(kind: str) -> None:
    encoder_class, make, encoder = made(kind)
    window, other = make(np.random.default_rng(1)), make(np.random.default_rng(2))
    first, second, fresh = (np.empty(encoder.shape, np.uint8) for _ in range(3))  # type: ignore[attr-defined]
    encoder.encode(window, first)  # type: ignore[attr-defined]
    encoder.encode(other, second)  # type: ignore[attr-defined]
    assert (first != second).any()
    encoder.encode(window, second)  # type: ignore[attr-defined]
    assert (first == second).all()
    encoder.reset()  # type: ignore[attr-defined]
    encoder_class(encoder_class.Config(), window.info, len(window.data)).encode(window, fresh)  # type: ignore[attr-defined]
    assert (first == fresh).all()


def test_a_window_is_not_changed(kind: str) -> None:
    _, make, encoder = made(kind)
    window = make(np.random.default_rng(1))
    before = window.data.copy()
    encoder.encode(window, np.empty(encoder.shape, np.uint8))  # type: ignore[attr-defined]
    assert (window.data == before).all()


def test_the_integer_type_does_not_matter(kind: str) -> None:
    _, make, encoder = made(kind)
    window = make(np.random.default_rng(1))
    wide = Window(window.t0_ns, window.dt_ns, window.data.astype(np.int32), window.info)
    first, second = (np.empty(encoder.shape, np.uint8) for _ in range(2))  # type: ignore[attr-defined]
    encoder.encode(window, first)  # type: ignore[attr-defined]
    encoder.encode(wide, second)  # type: ignore[attr-defined]
    assert (first == second).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0, 32767, -32768])
def test_a_stuck_sensor_encodes(kind: str, value: int) -> None:
    _, make, encoder = made(kind)
    window = make(np.random.default_rng(1))
    stuck = Window(window.t0_ns, window.dt_ns, np.full_like(window.data, value), window.info)
    out = np.full(encoder.shape, 77, np.uint8)  # type: ignore[attr-defined]
    encoder.encode(stuck, out)  # type: ignore[attr-defined]
    assert out.max() <= 1


def test_another_family_is_refused_in_one_sentence(kind: str) -> None:
    encoder_class, make, _ = made(kind)
    window = make(np.random.default_rng(1))
    stranger = SensorInfo("ultrasonic", ("range",), ("mm",), (1.0,), window.info.rate_hz)
    with pytest.raises(BadModel) as error:
        encoder_class(encoder_class.Config(), stranger, len(window.data))  # type: ignore[attr-defined]
    assert kind in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_key_is_refused(kind: str) -> None:
    encoder_class, _, _ = made(kind)
    with pytest.raises(ValidationError):
        encoder_class.Config.model_validate({"no_such_key": 1})  # type: ignore[attr-defined]


def test_the_config_survives_a_manifest(kind: str) -> None:
    encoder_class, _, _ = made(kind)
    config = encoder_class.Config()  # type: ignore[attr-defined]
    assert encoder_class.Config.model_validate_json(config.model_dump_json()) == config  # type: ignore[attr-defined]
