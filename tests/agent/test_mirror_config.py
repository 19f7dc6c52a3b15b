"""Mirrors in the configuration, in ``axond check`` and in a whole agent."""

import json
from pathlib import Path

import pytest

from agent import config
from agent.errors import ConfigError
from agent.mirrors.influx import InfluxConfig
from agent.mirrors.sparkplug import Sparkplug
from tests.brokers import Mosquitto
from tests.conftest import eventually
from tests.end_to_end.rig import axond, rig
from tests.mirror_peers import Listener, device


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "axond.toml"
    path.write_text(text)
    return config.load(path)


def test_none_by_default(tmp_path: Path) -> None:
    assert load(tmp_path, "").mirrors == {}


def test_the_kind_finds_the_class_and_its_settings(tmp_path: Path) -> None:
    settings = load(tmp_path, '[mirrors.scada]\nkind = "sparkplug"\nhost = "h"\ngroup_id = "Plant 1"\n')
    made = settings.mirrors["scada"].make(device())
    assert type(made) is Sparkplug
    assert made.name == "mirror-scada"
    assert made.cfg.group_id == "Plant 1"
    assert made.cfg.broker().port == 1883


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[mirrors.x]\nhost = 'h'", "mirrors.x.kind: missing; there are homeassistant, influx, sparkplug, thingsboard"),
        ("[mirrors.x]\nkind = 'influxdb'", "mirrors.x.kind: there is no mirror 'influxdb'; did you mean 'influx'?"),
        ("[mirrors.x]\nkind = 'base'", "mirrors.x.kind: there is no mirror 'base'"),
        ("[mirrors.x]\nkind = 3", "mirrors.x.kind: missing"),
        ("[mirrors.X]\nkind = 'influx'", "mirrors.X: a name has 1 to 63 of"),
        ("[mirrors.x]\nkind = 'homeassistant'", "mirrors.x.host: missing"),
        ("[mirrors.x]\nkind = 'homeassistant'\nhost = 'h'\nprot = 1", "mirrors.x.prot: unknown key; .*'port'"),
        ("[mirrors.x]\nkind = 'sparkplug'\nhost = 'h'\ngroup_id = 'a/b'", "mirrors.x.group_id: .*; found 'a/b'"),
        ("[mirrors.x]\nkind = 'thingsboard'\nhost = 'h'", "mirrors.x.token_file: missing"),
        (
            "[mirrors.x]\nkind = 'thingsboard'\nhost = 'h'\ntoken_file = '/nope/token'",
            "mirrors.x.token_file: /nope/token cannot be read",
        ),
        (
            "[mirrors.x]\nkind = 'homeassistant'\nhost = 'h'\nusername = 'u'",
            "mirrors.x: username and password_file go together$",
        ),
        (
            "[mirrors.x]\nkind = 'homeassistant'\nhost = 'h'\ncert_file = 'c'",
            "mirrors.x: cert_file, key_file and ca_file go together$",
        ),
        ("[mirrors.x]\nkind = 'influx'\nurl = 'http://h'", "mirrors.x: name org, bucket and token_file .* or database"),
        ("[mirrors.x]\nkind = 'influx'\nurl = 'ftp://h'\ndatabase = 'd'", "mirrors.x.url: .*; found 'ftp://h'"),
        ("[mirrors.x]\nkind = 'influx'\nurl = 'http://h:x'\ndatabase = 'd'", "mirrors.x.url: .*; found 'http://h:x'"),
        ("[mirrors.x]\nkind = 'influx'\nurl = 'http://u:p@h'\ndatabase = 'd'", "mirrors.x.url: "),
        (
            "[mirrors.x]\nkind = 'influx'\nurl = 'http://h'\ndatabase = 'd'\norg = 'o'",
            "mirrors.x: org, bucket and token_file are for InfluxDB 2",
        ),
        (
            "[mirrors.x]\nkind = 'influx'\nurl = 'http://h'\ndatabase = 'd'\n[mirrors.x.tags]\ndevice = 'd'",
            "mirrors.x: tag 'device' is taken",
        ),
        ("mirrors = 3", "mirrors: "),
        (
            "[mirrors.x]\nkind = 'sparkplug'\nhost = 'h'\n[mirrors.y]\nhost = 'h'\nkind = 'sparkplug'",
            "mirrors.y: the same as mirrors.x; take one away",
        ),
    ],
)
def test_one_sentence_with_file_key_and_value(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as error:
        load(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "axond.toml"))
    assert "\n" not in str(error.value)


def test_secrets_may_be_credentials_of_the_systemd_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "board").write_text("A1\n")
    table = '[mirrors.tb]\nkind = "thingsboard"\nhost = "h"\ntoken_file = "%d/board"\n'
    mirror = load(tmp_path, table).mirrors["tb"].make(device())
    assert mirror.cfg.broker().username == "A1"


def test_an_influx_table_for_each_version(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    second = f"url = 'https://h'\norg = 'o'\nbucket = 'b'\ntoken_file = '{tmp_path}/token'\ntags = {{ hall = 'Nord' }}"
    text = f"[mirrors.new]\nkind = 'influx'\n{second}\n[mirrors.old]\nkind = 'influx'\nurl = 'http://[::1]:8086'\n"
    mirrors = load(tmp_path, text + "database = 'd'\n").mirrors
    new, old = mirrors["new"].settings, mirrors["old"].settings
    assert isinstance(new, InfluxConfig) and isinstance(old, InfluxConfig)
    assert (new.bucket, new.tags, old.database) == ("b", {"hall": "Nord"}, "d")


def test_an_agent_mirrors_what_it_keeps_and_a_dead_mirror_costs_nothing(broker: Mosquitto, tmp_path: Path) -> None:
    mirrors = f"""
[mirrors.home]
kind = "homeassistant"
host = "127.0.0.1"
port = {broker.port}
[mirrors.dead]
kind = "influx"
url = "http://127.0.0.1:1"
database = "d"
"""
    listener = Listener(broker.port)
    with rig(tmp_path, broker.port) as made:
        made.write_config(extra=mirrors)
        checked = axond("check", "--config", str(made.config), "--json")
        assert json.loads(checked.stdout)["mirrors"] == {"home": "homeassistant", "dead": "influx"}
        made.hub()
        agent = made.agent()
        eventually(lambda: made.status().get("mirrors", {}).get("home", {}).get("sent"), "a copy", 60)
        eventually(lambda: made.status()["mirrors"]["dead"]["error"], "the dead one's sentence")
        eventually(lambda: sum(line.stored for line in made.hub_ledger()), "results at the hub")
        status = made.status()
        assert status["mirrors"]["home"]["connected"]
        assert status["mirrors"]["dead"]["waiting"] > 0
        assert "mirror dead" in status["health"]["reasons"]
        shown = axond("status", "--config", str(made.config)).stdout
        assert "mirror  home: connected; " in shown
        assert "mirror  dead: not connected: " in shown
        eventually(lambda: listener.messages("state/sound"), "a state")
        [metrics, *_] = eventually(lambda: listener.messages("up/metrics"), "metrics")
        assert json.loads(metrics.payload).keys() >= {
            "mirror_home_sent",
            "mirror_dead_dropped",
            "mirror_dead_connected",
        }
        code, took_s = agent.stop()
        assert code == 0
        assert took_s < 10
        assert made.stored_twice() == 0
        assert made.missing_at_hub(made.committed()) == {}
    listener.close()
