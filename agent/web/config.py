"""The table ``[http]`` of the configuration."""

import re
from ipaddress import ip_address
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

DEFAULT_LISTEN = "127.0.0.1:10473"
"""Outside 9100 to 9999, where every port has been given to some exporter of metrics, and no port of IANA's list."""
_LISTEN = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>[0-9]{1,5})\Z")


def split_listen(text: str) -> tuple[str, int]:
    """``1.2.3.4:80`` or ``[::1]:80`` as address and port; ``ValueError`` for anything else, names included."""
    found = _LISTEN.match(text)
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise ValueError(f"{text!r} is no place to listen; write IP address:port, for example {DEFAULT_LISTEN!r}")
    host = found["host"].strip("[]")
    try:
        address = ip_address(host)
    except ValueError as error:
        raise ValueError(f"{host!r} is no IP address; for this machine alone write {DEFAULT_LISTEN!r}") from error
    if (address.version == 6) != found["host"].startswith("["):
        raise ValueError(f"{text!r}: an IPv6 address, and no other, stands in brackets, for example '[::1]:10473'")
    return str(address), int(found["port"])


def _listen(text: str) -> str:
    split_listen(text)
    return text


Listen: TypeAlias = Annotated[str, AfterValidator(_listen)]


class HttpTable(BaseModel):
    """``[http]``: health, metrics and status for tools on this machine. There is no authentication."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    listen: Annotated[list[Listen], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)] = Field(
        default=[DEFAULT_LISTEN], max_length=8
    )
    """One or several; an empty list is no server at all: nothing listens on any port."""
