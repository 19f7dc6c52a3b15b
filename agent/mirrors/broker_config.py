"""The part of a mirror's table that says where its MQTT broker is and how to log in."""

from dataclasses import replace

from pydantic import Field, model_validator

from agent.credentials import CredentialPath
from agent.mirrors.base import MirrorConfig
from agent.mqtt import Broker, default_port

KEEPALIVE_S = 15
"""Half of the uplink's: where nothing is acknowledged only this tells that the broker is gone."""


class BrokerConfig(MirrorConfig):
    """Where the broker is. Given ``ca_file`` the connection uses TLS, and only this authority is trusted."""

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    """Default: 1883, with TLS 8883."""
    ca_file: CredentialPath | None = None
    cert_file: CredentialPath | None = None
    key_file: CredentialPath | None = None

    @model_validator(mode="after")
    def _complete_tls(self) -> "BrokerConfig":
        if (self.cert_file is None) != (self.key_file is None) or (self.cert_file and not self.ca_file):
            raise ValueError("cert_file, key_file and ca_file go together")
        return self

    def broker(self) -> Broker:
        """Where to connect to and as whom. Raises OSError or UnicodeDecodeError for a file that cannot be read."""
        return Broker(
            host=self.host,
            port=self.port or default_port(self.ca_file),
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            keepalive_s=KEEPALIVE_S,
        )


class LoginConfig(BrokerConfig):
    """A broker with user name and password."""

    username: str | None = Field(default=None, min_length=1)
    password_file: CredentialPath | None = None

    @model_validator(mode="after")
    def _complete_login(self) -> "LoginConfig":
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        return self

    def broker(self) -> Broker:
        return replace(super().broker(), username=self.username or "", password_file=self.password_file)
