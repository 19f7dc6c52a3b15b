"""The configuration: what is right, and one clear sentence for everything that is wrong."""

from pathlib import Path

import pytest

from agent import config
from agent.composition import open_bundles
from agent.errors import ConfigError

GOOD = """
[device]
id = "node-7"

[sensors.imu0]
driver = "imu.witmotion"
port = "/dev/serial/by-id/usb-imu"
rate_hz = 50

[pipelines.walk]
sensors = ["imu0"]
model = "activity"
report = "on_change"

[uplink]
host = "broker.example"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "axond.toml"
    path.write_text(text)
    return path


def test_a_right_file(tmp_path: Path) -> None:
    settings = config.load(write(tmp_path, GOOD))
    assert settings.device.id == "node-7"
    assert settings.sensors["imu0"].kind == "imu.witmotion"
    assert settings.sensors["imu0"].make().info().channels[0] == "ax"
    assert settings.pipelines["walk"].backend == ["auto"]
    assert settings.uplink is not None
    assert settings.uplink.port is None


def test_an_empty_file_is_an_agent_without_sensors(tmp_path: Path) -> None:
    settings = config.load(write(tmp_path, ""))
    assert settings.sensors == {}
    assert settings.uplink is None


def test_drop_ins_override_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    folder = tmp_path / "axond.toml.d"
    folder.mkdir()
    (folder / "20-site.toml").write_text('[uplink]\nport = 8883\n[device]\nid = "site"\n')
    (folder / "10-fleet.toml").write_text('[device]\nid = "fleet"\n[pipelines.walk]\nreport = "every"\n')
    settings = config.load(path)
    assert settings.device.id == "site"
    assert settings.uplink is not None
    assert (settings.uplink.host, settings.uplink.port) == ("broker.example", 8883)
    assert settings.pipelines["walk"].report == "every"


def test_a_wrong_drop_in_is_named_itself(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    folder = tmp_path / "axond.toml.d"
    folder.mkdir()
    (folder / "10-site.toml").write_text('[uplink]\nprot = 8883\n[sensors.imu0]\nbaud = "fast"\n')
    with pytest.raises(ConfigError, match=r"^\S+10-site.toml: uplink.prot: unknown key"):
        config.load(path)
    (folder / "10-site.toml").write_text('[sensors.imu0]\nbaud = "fast"\n')
    with pytest.raises(ConfigError, match=r"^\S+10-site.toml: sensors.imu0.baud: .*; found 'fast'"):
        config.load(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ('[device]\nidd = "x"', "device.idd: unknown key; known here: id, .*, profile; did you mean 'id'?"),
        ("[sensor.x]", "sensor: unknown key; known here: .*did you mean 'sensors'"),
        ('[log]\nlevel = "loud"', "log.level: .*; found 'loud'"),
        ('[device]\nid = "Node 7"', "device.id: .*; found 'Node 7'"),
        ('[outbox]\nmax_bytes = "big"', "outbox.max_bytes: .*; found 'big'"),
        ("[sensors.mic0]\nrate_hz = 1", "sensors.mic0.driver: missing"),
        ('[sensors.mic0]\ndriver = "audio.flie"', "sensors.mic0.driver: .*audio.file"),
        ('[sensors.mic0]\ndriver = "audio.file"', "sensors.mic0.path: missing"),
        (
            '[sensors.imu0]\ndriver = "imu.witmotion"\nport = "/dev/x"\nbuad = 1',
            "sensors.imu0.buad: unknown key; .*'baud'",
        ),
        ('[sensors."MIC 0"]\ndriver = "synthetic"', "sensors.MIC 0: a name has 1 to 63 of"),
        (
            '[pipelines.p]\nsensors = ["mcro"]\nmodel = "activity"',
            "pipelines.p.sensors.0: no sensor 'mcro'; there are none",
        ),
        ("[pipelines.p]\nsensors = []\nmodel = 'm'", "pipelines.p.sensors: "),
        ("[pipelines.p]\nsensors = ['s']\nmodel = 'm'\nbackend = 3", "pipelines.p.backend: .*; found 3"),
        ("[pipelines.p]\nsensors = ['s']\nmodel = 'm'\nbackend = []", "pipelines.p.backend: "),
        ("[pipelines.p]\nsensors = ['s']\nmodel = 'm'\nisolate = 1", "pipelines.p.isolate: .*; found 1"),
        ("[uplink]\nport = 1", "uplink.host: missing"),
        ('[uplink]\nhost = "h"\nusername = "u"', "uplink: username and password_file go together"),
        ('[uplink]\nhost = "h"\nca_file = "/nope/ca.pem"', "uplink.ca_file: /nope/ca.pem cannot be read"),
        ("sensors = 3", "sensors: "),
        ('[uplink]\nhost = "h"\nport = "1883"', "uplink.port: .*; found '1883'"),
        ('[uplink]\nhost = "h"\nport = true', "uplink.port: .*; found True"),
        ('[uplink]\nhost = ""', "uplink.host: "),
        ('[sensors.mic0]\ndriver = "audio.file"\npath = "x.wav"\nloop = "yes"', "sensors.mic0.loop: .*; found 'yes'"),
        ('[sensors.mic0]\ndriver = "audio.file"\npath = "x.wav"\nrate_hz = "8000"', "sensors.mic0.rate_hz: "),
        ('[sensors."mic\\n"]\ndriver = "synthetic"', "a name has 1 to 63 of"),
        ("[device", "not valid TOML"),
    ],
)
def test_one_sentence_with_file_key_and_value(tmp_path: Path, change: str, sentence: str) -> None:
    path = write(tmp_path, change)
    with pytest.raises(ConfigError, match=sentence) as error:
        config.load(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value).strip()


def test_backends_are_one_kind_or_a_list_of_kinds_that_exist(tmp_path: Path) -> None:
    for text, wanted in (('"onnx"', ["onnx"]), ('["onnx", "auto"]', ["onnx", "auto"])):
        settings = config.load(
            write(
                tmp_path,
                GOOD + f"[pipelines.walk2]\nsensors = ['imu0']\nmodel = 'activity'\nbackend = {text}\nisolate = true\n",
            )
        )
        assert settings.pipelines["walk2"].backend == wanted
        assert settings.pipelines["walk2"].isolate
    wrong = config.load(
        write(tmp_path, GOOD.replace("[pipelines.walk]", '[pipelines.walk]\nbackend = ["onnx", "abacus"]'))
    )
    with pytest.raises(ConfigError, match=r"pipelines.walk.backend: unknown 'abacus'; there are auto, .*reference"):
        open_bundles(wrong)


def test_threshold_goes_with_its_policy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pipelines.walk.threshold: needed with"):
        config.load(write(tmp_path, GOOD.replace("on_change", "threshold")))
    with pytest.raises(ConfigError, match=r"pipelines.walk.threshold: needed with"):
        config.load(write(tmp_path, GOOD.replace('report = "on_change"', "threshold = 0.5")))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: cannot be read \(No such file or directory\); .*--config"):
        config.load(tmp_path / "none.toml")


@pytest.mark.parametrize("folder", ["", "..", "/"])
def test_a_folder_is_no_configuration(folder: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\); .*--config"):
        config.load(Path(folder))
