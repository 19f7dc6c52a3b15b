"""TLS and time: a certificate that only the clock of the device makes invalid."""

import subprocess
import sys
from pathlib import Path

import pytest

from hil.clock_shim.clock import COMPILER, ShimClock

HANDSHAKE = """
import ssl, sys
from pathlib import Path
from agent import kernel_clock
from agent.clock import untimely

folder = Path(sys.argv[1])
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(folder / "ca.crt", folder / "ca.key")
client = ssl.create_default_context(cafile=folder / "ca.crt")
client.check_hostname = False
pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
ends = [client.wrap_bio(*pipes), server.wrap_bio(*pipes[::-1], server_side=True)]
try:
    for end in ends * 4:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
    print("trusted")
except ssl.SSLCertVerificationError as error:
    print(untimely(error))
print(kernel_clock.may_be_asked())
"""


@pytest.mark.skipif(COMPILER is None, reason="gcc is not installed: the shim of the clock cannot be built")
def test_a_certificate_that_the_clock_makes_invalid_is_said_to_be_that(tmp_path: Path) -> None:
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt"
    subprocess.run([*make.split(), "-days", "30", "-subj", "/CN=ca"], cwd=tmp_path, check=True, capture_output=True)
    clock = ShimClock(tmp_path, "tls")

    def said() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", HANDSHAKE, str(tmp_path)], env=clock.environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    clock.set_to(20.0)
    sentence = "is not valid yet by the clock of this device, which is not synchronised and says 1970-01-01T00:00:2"
    assert said()[0].startswith(sentence) and "NTP" in said()[0]
    clock.synchronise(10 * 365 * 86400.0)
    assert said()[0].startswith("has expired: the clock says 20") and said()[0].endswith("and is synchronised")
    clock.synchronise()
    assert said() == ["trusted", "True"]
    clock.forbid()
    assert said() == ["trusted", "False"]
