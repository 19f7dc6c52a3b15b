"""The table ``[uplink]`` of the configuration."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agent.credentials import CredentialPath
from agent.topics import ROOT, ROOT_PATTERN

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(:(?P<port>[0-9]{1,5}))?\Z")


def split_address(text: str) -> tuple[str, int | None]:
    """``host``, ``host:port`` or ``[IPv6]:port``; ``ValueError`` for anything else."""
    found = _ADDRESS.match(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or not (port is None or 1 <= port <= 65535):
        raise ValueError(f"{text!r} is no address; write host, host:port or [IPv6 address]:port")
    return found["host"].strip("[]"), port


def _address(text: str) -> str:
    split_address(text)
    return text


Address: TypeAlias = Annotated[str, AfterValidator(_address)]


class UplinkTable(BaseModel):
    """``[uplink]``; without this table results stay in the outbox. Files may be systemd credentials: ``%d/name``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    """Default: 1883, with TLS (``ca_file``) 8883."""
    fallbacks: list[Address] = Field(default=[], max_length=8)
    """Brokers for when ``host`` fails, in order: ``["b", "c:1884"]``. After one that held, ``host`` is first."""
    topic_root: str = Field(default=ROOT, pattern=f"^{ROOT_PATTERN}$")
    ack: Literal["hub", "broker"] = "hub"
    """When a result is deleted here: ``hub``, when a hub has said that it is stored. ``broker``, when the broker has
    said that it has the message: for consumers that send no watermarks. What the broker then loses is lost: mosquitto
    by default throws away what is beyond 1000 messages for a consumer that is offline, all of it when it is killed
    without persistence, and over MQTT 3.1.1 what nobody listens to or what an access rule forbids."""
    metrics_interval_s: float = Field(default=60.0, ge=1)
    username: str | None = Field(default=None, min_length=1)
    password_file: CredentialPath | None = None
    ca_file: CredentialPath | None = None
    cert_file: CredentialPath | None = None
    key_file: CredentialPath | None = None
