"""Debian's own documents, and the archive."""

import hashlib
import os
import re
import time
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from target import HERE, TREE, Target, do
from tree import put_packed

MAINTAINER = "The axond developers <axond@users.noreply.invalid>"
PLAIN = ("control", "md5sums", "conffiles")
SCRIPTS = ("postinst", "prerm", "postrm")
DEPENDS = (
    "python3 (>= {python})",
    "python3 (<< {next_python})",
    "libc6 (>= 2.28)",
    "libgcc-s1 (>= 4.2)",
    "libstdc++6 (>= 11)",
    "libasound2 (>= 1.1.7) | libasound2t64",
    "systemd (>= 247) | systemd-standalone-sysusers",
)
CONTROL = """\
Package: axond
Version: {version}
Architecture: {arch}
Maintainer: {maintainer}
Installed-Size: {size_kib}
Depends: {depends}
Recommends: udev
Suggests: alsa-utils, mosquitto, python3-pip
Section: net
Priority: optional
Description: turns sensors and a neuromorphic chip into a perception node
 axond reads microphones, inertial sensors, rangers and event cameras, encodes
 what they say as spikes, runs a quantised spiking network on what the device
 has, keeps each result until it is known to be stored elsewhere, and brings it
 to a hub over MQTT.
 .
 The package brings all Python libraries that it needs in an environment of its
 own below /opt/axond, and needs no network to be installed.
"""
CHANGES = """\
axond ({version}) unstable; urgency=medium

  * Version {upstream}; what changed is in changelog.gz beside this file.

 -- {maintainer}  {date}
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: axond

Files: *
Copyright: 2026 the axond authors
License: Apache-2.0
"""
APACHE = """\
License: Apache-2.0
 On Debian systems the full text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
"""


def document(root: Path, target: Target, version: str, date_s: int) -> None:
    """Copyright and changes below /usr/share/doc."""
    upstream = version.split("-", maxsplit=1)[0]
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(date_s))
    docs = "usr/share/doc/axond"
    changes = CHANGES.format(version=version, upstream=upstream, maintainer=MAINTAINER, date=date)
    put_packed(root, f"{docs}/changelog.Debian.gz", changes)
    put_packed(root, f"{docs}/changelog.gz", (TREE / "CHANGELOG.md").read_text())
    put_packed(root, f"{docs}/README.md.gz", (TREE / "README.md").read_text())
    (root / docs / "copyright").write_text(
        _copyright(root / "opt/axond/lib" / f"python{target.python}" / "site-packages")
    )


def _copyright(packages: Path) -> str:
    """axond's licence, and of each library what its authors declare; the texts are where pip laid them."""
    parts = [COPYRIGHT]
    for facts in sorted(packages.glob("*.dist-info/METADATA")):
        told = HeaderParser().parsestr(facts.read_text(errors="replace"))
        name = facts.parent.name.removesuffix(".dist-info")
        if name.startswith("axond-"):
            continue
        where = f"/opt/axond/lib/{packages.parent.name}/site-packages/{facts.parent.name}"
        short = re.sub(r"[^A-Za-z0-9.+-]+", "-", _licence(told)).strip("-")
        owner = " ".join((told["Author"] or told["Author-email"] or told["Name"]).split())
        parts.append(
            f"Files: opt/axond/lib/*/site-packages/{name.split('-', maxsplit=1)[0]}*\nCopyright: {owner}\n"
            f"License: {name}-{short}\n As its authors declare: {_licence(told)}. The text is\n in {where}.\n"
        )
    return "\n".join([*parts, APACHE])


def _licence(told: Message) -> str:
    get = told.get_all
    expression = (get("License-Expression") or [""])[0]
    classified = [line.rsplit("::", 1)[1].strip() for line in get("Classifier") or () if line.startswith("License ::")]
    stated = ((get("License") or [""])[0].splitlines() or [""])[0].strip()
    return expression or ", ".join(classified) or stated or "see there"


def pack(root: Path, out: Path, target: Target, version: str, *, small: bool) -> Path:
    """Add the control files and write the package; ``small`` False skips the compression. Raises BuildError."""
    control = root / "DEBIAN"
    control.mkdir()
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    inside = [path.relative_to(root) for path in files if control not in path.parents]
    size_kib = sum(1 + (root / path).stat().st_size // 1024 for path in inside)
    major, minor = target.python.split(".")
    (control / "control").write_text(
        CONTROL.format(
            version=version,
            arch=target.arch,
            maintainer=MAINTAINER,
            size_kib=size_kib,
            depends=", ".join(DEPENDS).format(python=target.python, next_python=f"{major}.{int(minor) + 1}"),
        )
    )
    sums = [f"{hashlib.md5((root / path).read_bytes()).hexdigest()}  {path}\n" for path in inside]
    (control / "md5sums").write_text("".join(sums))
    (control / "conffiles").write_text("".join(f"/{path}\n" for path in inside if path.parts[0] == "etc"))
    for name in SCRIPTS:
        text = (HERE / name).read_text().replace("@PYTHON@", target.python)
        (control / name).write_text(text)
    return _archive(root, out / f"axond_{version}_{target.arch}.deb", small=small)


def _archive(root: Path, package: Path, *, small: bool) -> Path:
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            runs = path.is_dir() or (path.parent.name in ("bin", "DEBIAN") and path.name not in PLAIN)
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (int(os.environ["SOURCE_DATE_EPOCH"]),) * 2, follow_symlinks=False)
    package.parent.mkdir(parents=True, exist_ok=True)
    # As many threads as there are cores give other bytes on one core than on several.
    squeeze = ["-Zxz", "--threads-max=2"] if small else ["-Znone"]
    do("dpkg-deb", "--root-owner-group", *squeeze, "--build", root, package)
    return package
