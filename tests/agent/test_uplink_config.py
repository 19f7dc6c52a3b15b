"""The table [uplink]: several brokers and where secrets lie."""

from pathlib import Path

import pytest

from agent.config import load
from agent.errors import ConfigError
from agent.uplink_config import UplinkTable, split_address


def uplink(folder: Path, text: str) -> UplinkTable:
    path = folder / "axond.toml"
    path.write_text(f'[uplink]\nhost = "a"\n{text}\n')
    table = load(path).uplink
    assert table is not None
    return table


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("b", ("b", None)),
        ("b.example:1884", ("b.example", 1884)),
        ("192.0.2.1:1883", ("192.0.2.1", 1883)),
        ("[fd00::1]:8883", ("fd00::1", 8883)),
        ("[fd00::1]", ("fd00::1", None)),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text: str, address: tuple[str, int | None]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":1883", "b:", "b:0", "b:65536", "b:x", "mqtt://b", "a b", "fd00::1", "[b", "b:1883\n"]
)
def test_what_is_no_address_is_refused_with_its_place(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no address"):
        split_address(text)
    escaped = text.replace("\n", "\\n")
    with pytest.raises(ConfigError, match=r"axond.toml: uplink.fallbacks.1: .*is no address; write host, host:port"):
        uplink(tmp_path, f'fallbacks = ["b", "{escaped}"]')


def test_fallbacks_are_none_unless_named(tmp_path: Path) -> None:
    assert uplink(tmp_path, "").fallbacks == []
    assert uplink(tmp_path, 'fallbacks = ["b", "c:1884"]').fallbacks == ["b", "c:1884"]


def test_a_credential_of_the_unit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "password").write_text("secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    table = uplink(tmp_path, 'username = "d1"\npassword_file = "%d/password"')
    assert table.password_file == folder / "password"
    with pytest.raises(ConfigError, match=r"uplink.ca_file: .*/credentials/ca.crt cannot be read"):
        uplink(tmp_path, 'ca_file = "%d/ca.crt"')


def test_a_credential_outside_the_unit_is_that_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(
        ConfigError, match=r"uplink.password_file: /run/credentials/axond.service/none cannot be read \(No such file"
    ):
        uplink(tmp_path, 'username = "d1"\npassword_file = "%d/none"')
    with pytest.raises(ConfigError, match=r"uplink.password_file: /etc/axond/credentials/none cannot be read"):
        uplink(tmp_path, 'username = "d1"\npassword_file = "%d/axond_none"')


def test_who_only_looks_need_not_read_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    file = tmp_path / "axond.toml"
    file.write_text(
        '[uplink]\nhost = "b"\nusername = "d1"\npassword_file = "%d/axond_none"\n'
        '[mirrors.m]\nkind = "influx"\nurl = "http://b"\ndatabase = "d"\nusername = "u"\n'
        'password_file = "/nonexistent"\n'
    )
    assert load(file, whole=False).uplink is not None
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file)


def test_other_files_are_taken_as_they_are(tmp_path: Path) -> None:
    password = tmp_path / "%d"
    password.write_text("secret")
    assert uplink(tmp_path, f'username = "d1"\npassword_file = "{password}"').password_file == password
