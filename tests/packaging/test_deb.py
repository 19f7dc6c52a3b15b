"""The Debian package: what is in it, and its whole life in a Debian that really booted (``make package-test``)."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from hil.guest.nspawn import Guest, available
from hil.guest.root import GuestError, cached_root

TREE = Path(__file__).parents[2]
BUILD = TREE / "packaging" / "deb" / "build.py"
WARM = TREE / "build" / "deb" / "wheels-3.11-amd64"
FULL = pytest.mark.skipif("AXOND_PACKAGES" not in os.environ, reason="minutes: make package-test")
INSTALL_S = 300.0
MOST_MB = 45
INSIDE = (
    "usr/bin/axond",
    "etc/axond/axond.toml",
    "lib/systemd/system/axond.service",
    "lib/udev/rules.d/60-axond.rules",
    "usr/lib/sysusers.d/axond.conf",
    "usr/share/man/man1/axond.1.gz",
    "usr/share/man/man5/axond.toml.5.gz",
    "usr/share/bash-completion/completions/axond",
    "usr/share/doc/axond/copyright",
)
DROP_IN = """
[sensors.imu0]
driver = "synthetic"
rate_hz = 50
[pipelines.motion]
sensors = ["imu0"]
model = "activity"
"""
OF_OTHERS = (
    "/var/log/",
    "/var/cache/",
    "/var/lib/dpkg/",
    "/var/lib/systemd/",
    "/run/",
    "/tmp/",
    "/root",
    "/proc/",
    "/sys/",
)
"""What dpkg and systemd write about everything."""


def build(out: Path, *arguments: str) -> Path:
    command = [sys.executable, str(BUILD), "--arch", "amd64", "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split(": ")[0])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not compressed: that takes a minute."""
    if shutil.which("dpkg-deb") is None or not WARM.is_dir():
        pytest.skip("no wheels in build/deb: make deb fetches them")
    folder: Path = tmp_path_factory.mktemp("package")
    return build(folder, "--fast")


@pytest.fixture
def guest_folder(tmp_path: Path) -> Path:
    if (reason := available()) is not None:
        pytest.skip(reason)
    try:
        cached_root()
    except GuestError as error:
        pytest.skip(str(error))
    return tmp_path


def until(what: str, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.2)


def test_the_package_has_what_an_engineer_looks_for_and_nothing_of_its_maker(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-R", str(package), str(tmp_path)], check=True)
    for path in INSIDE:
        assert (tmp_path / path).is_file(), path
    assert {*(tmp_path / "DEBIAN/conffiles").read_text().split()} == {"/etc/axond/axond.toml", "/etc/axond/hub.env"}
    packages = tmp_path / "opt/axond/lib/python3.11/site-packages"
    zoo = {path.relative_to(TREE) for path in (TREE / "models/zoo").rglob("*") if path.is_file()}
    zoo = {path for path in zoo if not {"_build", "__pycache__"} & {*path.parts}}
    assert {path for path in zoo if not (packages / path).is_file()} == set()
    assert not [*packages.rglob("*.pyc")]
    # Neither where it was built nor from where it was fetched.
    traces = [str(TREE).encode(), b"file:///opt/"]
    small = (
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix != ".so" and path.stat().st_size < 1_000_000
    )
    assert [path for path in small if any(trace in path.read_bytes() for trace in traces)] == []
    # The program of the package itself, on the Python that it asks for.
    if Path("/usr/bin/python3.11").exists():
        command = [
            str(tmp_path / "opt/axond/bin/python3"),
            "-I",
            str(tmp_path / "usr/bin/axond"),
            "check",
            "--json",
            "--config",
        ]
        done = subprocess.run(
            [*command, str(tmp_path / "etc/axond/axond.toml")], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["sensors"] == {}


OTHER_PYTHON = """
import sys
sys.path[:0] = [sys.argv.pop(1)]
from agent.__main__ import main
sys.exit(main())
"""


@FULL
@pytest.mark.parametrize("python", ["3.10", "3.12"])
def test_packages_for_ubuntu_s_pythons_compute_the_same(python: str, tmp_path: Path) -> None:
    package = build(tmp_path, "--fast", "--python", python)
    subprocess.run(["dpkg-deb", "-R", str(package), str(tmp_path / "tree")], check=True)
    packages = tmp_path / f"tree/opt/axond/lib/python{python}/site-packages"
    assert [*packages.rglob("*.pyc")] == []
    depends = next(x for x in (tmp_path / "tree/DEBIAN/control").read_text().splitlines() if x.startswith("Depends"))
    assert f"python3 (>= {python}), python3 (<< 3.{int(python[2:]) + 1})" in depends
    interpreter = f"python{python}"
    # pyenv has programs that only say which versions there are.
    if subprocess.run(["sh", "-c", f"{interpreter} -V"], capture_output=True, check=False).returncode:
        pytest.skip(f"no {interpreter} here to run it; its files are right")
    command = [interpreter, "-I", "-c", OTHER_PYTHON, str(packages)]
    done = subprocess.run([*command, "model", "verify", "activity"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": identical\n") == 3, done.stdout


@FULL
def test_two_builds_give_the_same_bytes_of_a_size_that_a_device_likes(tmp_path: Path) -> None:
    one, other = (build(tmp_path / name) for name in ("one", "other"))
    print(f"\n{one.name}: {one.stat().st_size / 1e6:.1f} MB")
    assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
    assert one.stat().st_size < MOST_MB * 1e6


@FULL
def test_lintian_has_nothing_to_say_that_is_not_explained(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed (apt install lintian)")
    uncompressed = "uses-no-compression-for-data-tarball,uses-no-compression-for-control-tarball"
    command = ["lintian", "--suppress-tags", uncompressed, str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if re.match("[EWIP]:", line)] == []
    lines = (TREE / "packaging/deb/lintian-overrides").read_text().splitlines()
    for before, line in pairwise(lines):
        assert line.startswith("#") or before.startswith(("#", "axond: ")), f"no reason is given: {line}"


@FULL
def test_install_upgrade_downgrade_remove_purge(package: Path, guest_folder: Path) -> None:
    newer = build(guest_folder, "--fast", "--version", "99.0.0")
    ours = package.name.split("_")[1].split("-", maxsplit=1)[0]
    with Guest.booted(guest_folder / "guest") as guest:
        for name, path in (("old", package), ("new", newer)):
            guest.copy(path, f"/root/{name}.deb")
        before, users = files(guest), guest.run("getent", "passwd").stdout

        took_s = install(guest, "old")
        assert guest.run("systemctl", "is-active", "axond").stdout == "active\n"
        assert guest.run("systemctl", "is-enabled", "axond").stdout == "enabled\n"
        assert guest.run("systemctl", "is-enabled", "axond-hub", check=False).stdout == "disabled\n"
        guest.run("axond", "status")
        guest.write("/etc/axond/axond.toml.d/10-motion.toml", DROP_IN)
        guest.run("sh", "-c", "echo '# mine' >>/etc/axond/axond.toml")
        guest.write("/etc/axond/credentials/mqtt", "secret")
        guest.write("/opt/axond/extras/python3.11/locate/mine.py", "")
        guest.run("systemctl", "restart", "axond")
        until("no result", lambda: len(rows(guest)) > 2)

        kept, away_s = rows(guest), []
        for name, version in (("new", "99.0.0"), ("old", ours), ("new", "99.0.0")):
            install(guest, name)
            away_s.append(downtime_s(guest))
            assert guest.run("axond", "version").stdout.startswith(f"axond {version} ")
            assert guest.run("systemctl", "is-active", "axond").stdout == "active\n"
            count = len(kept)
            until("no result after the change", lambda seen=count: len(rows(guest)) > seen)
            now = rows(guest)
            assert kept <= now
            kept = now
        assert guest.run("tail", "-n1", "/etc/axond/axond.toml").stdout == "# mine\n"
        # What a person has switched off stays off.
        guest.run("systemctl", "disable", "--now", "axond")
        install(guest, "old")
        assert guest.run("systemctl", "is-active", "axond", check=False).stdout == "inactive\n"

        guest.run("dpkg", "-r", "axond", timeout_s=INSTALL_S)
        left = files(guest) - before
        assert {"/etc/axond/axond.toml", "/var/lib/axond/outbox.db", "/etc/axond/credentials/mqtt"} <= left
        assert "/opt/axond/extras/python3.11/locate/mine.py" in left
        assert not any("/opt/axond/lib" in path or path.startswith(("/usr/", "/lib/")) for path in left)
        install(guest, "old")
        assert kept <= rows(guest)

        guest.run("dpkg", "-P", "axond", timeout_s=INSTALL_S)
        # dpkg takes the empty /opt along, which no package of Debian owns.
        assert files(guest) | {"/opt"} == before
        assert guest.run("getent", "passwd").stdout == users
        assert "axond" not in guest.run("getent", "group").stdout
        assert guest.run("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout == ""
        print(f"\ninstallation {took_s:.1f} s, without an agent while upgrading {max(away_s):.1f} s at most")


def install(guest: Guest, name: str) -> float:
    begin_s = time.monotonic()
    done = guest.run("dpkg", "-i", f"/root/{name}.deb", timeout_s=INSTALL_S)
    assert "warning" not in done.stderr.replace("warning: downgrading axond", "")
    return time.monotonic() - begin_s


def files(guest: Guest) -> set[str]:
    every = guest.run("find", "/", "-xdev", "-not", "-type", "s").stdout.splitlines()
    return {path for path in every if not f"{path}/".startswith(OF_OTHERS)}


def rows(guest: Guest) -> set[tuple[str, str, int, str]]:
    """What waits in the outbox; who tells when is not asked, since times are corrected later."""
    lines = guest.run("axond", "outbox", "export").stdout.splitlines()
    return {(row["boot"], row["stream"], row["seq"], row["label"]) for row in map(json.loads, lines)}


def downtime_s(guest: Guest) -> float:
    """From the agent's last stop to its READY, as systemd saw it."""
    names = ("InactiveEnterTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    told = guest.run("systemctl", "show", "axond", "-p", ",".join(names)).stdout
    values = dict(line.split("=") for line in told.split())
    return (int(values[names[1]]) - int(values[names[0]])) / 1e6
