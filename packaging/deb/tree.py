"""Fill the folder that becomes the package."""

import gzip
import os
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from alsa import compiled
from target import HERE, TREE, BuildError, Target, do, pip

HOME = Path("opt/axond")
UNITS = TREE / "packaging" / "systemd"
LEFT_OUT = (
    "bin",  # programs of libraries; the launcher is ours
    "numpy/**/tests",
    "**/__pycache__",  # some wheels bring one; postinst makes them, prerm takes them away
    "ai_edge_litert/libLiteRtWebGpuAccelerator.so",  # a browser's graphics interface; our backend runs on the processor
    "ai_edge_litert/tools/apply_plugin_main",  # compiles for the chips of phones
    "ai_edge_litert/vendors",  # the same
    "onnxruntime/capi/libonnxruntime.so*",  # for programs in C; the module for Python has it built in
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "onnxruntime/quantization",
    "zstandard/_cffi.*.so",  # for PyPy
)
"""What no command of axond loads, a third of all that pip unpacks."""
STRIPPED = ("zstandard", "sqlalchemy")
"""Come with debugging information, 15 MB of it. Libraries that patchelf has rewritten (numpy's) do not survive that."""
OFFLINE = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_NO_INDEX": "1"}
"""For pip: nothing but what it is told."""
PLACES = {
    ".service": "lib/systemd/system/{name}.service",
    ".sysusers": "usr/lib/sysusers.d/{name}.conf",
    ".tmpfiles": "usr/lib/tmpfiles.d/{name}.conf",
    ".catalog": "usr/lib/systemd/catalog/{name}.catalog",
}
"""Where the files of packaging/systemd go, by the end of their names."""


def fill(root: Path, target: Target, version: str) -> None:
    """Everything but Debian's own documents. Raises BuildError."""
    _environment(root, target, version)
    _put(root, "usr/bin/axond", (HERE / "launcher").read_text(), 0o755)
    for path in sorted(UNITS.iterdir()) if UNITS.exists() else ():
        if path.suffix in PLACES:
            _put(root, PLACES[path.suffix].format(name=path.stem), path.read_text())
    for rules in sorted((TREE / "packaging" / "udev").glob("*.rules")):
        _put(root, f"lib/udev/rules.d/{rules.name}", rules.read_text())
    for name in ("axond.toml", "hub.env"):
        _put(root, f"etc/axond/{name}", (HERE / name).read_text())
    _put(root, "usr/share/lintian/overrides/axond", (HERE / "lintian-overrides").read_text())
    made = do(sys.executable, TREE / "packaging/completion/bash.py")
    _put(root, "usr/share/bash-completion/completions/axond", made)
    with tempfile.TemporaryDirectory() as folder:
        do(sys.executable, TREE / "packaging/man/pages.py", folder, version)
        for page in sorted(Path(folder).iterdir()):
            put_packed(root, f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz", page.read_text())


def put_packed(root: Path, path: str, text: str) -> None:
    """A compressed file, the same bytes each time."""
    _place(root, path).write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _put(root: Path, path: str, text: str, mode: int = 0o644) -> None:
    place = _place(root, path)
    place.write_text(text)
    place.chmod(mode)


def _place(root: Path, path: str) -> Path:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _environment(root: Path, target: Target, version: str) -> None:
    """A virtual environment by hand: its Python is that of the device, which need not run here."""
    home = root / HOME
    packages = home / "lib" / f"python{target.python}" / "site-packages"
    packages.mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "bin" / f"python{target.python}").symlink_to(f"/usr/bin/python{target.python}")
    (home / "bin" / "python3").symlink_to(f"python{target.python}")
    (home / "bin" / "python").symlink_to("python3")
    # Debian's modules stay visible (python3-pip for the extras), behind all of ours.
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = true\nversion = {target.python}\n"
    )
    _install(target, packages)
    _install_axond(packages, version)
    alsa = compiled(target)
    if alsa is not None:
        shutil.copytree(alsa, packages, dirs_exist_ok=True)
    for pattern in LEFT_OUT:
        for path in sorted(packages.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in STRIPPED:
        do(f"{target.triplet}-strip", "--strip-debug", *sorted((packages / name).rglob("*.so")))
    # What a user adds comes after what was tested together, and before Debian's.
    extras = f"../../../extras/python{target.python}"
    (packages / "axond-extras.pth").write_text("".join(f"{extras}/{name}\n" for name in _extras(packages)))
    shutil.copyfile(target.lock, home / "constraints.txt")


def _extras(packages: Path) -> list[str]:
    (facts,) = packages.glob("axond-*.dist-info/METADATA")
    return re.findall(r"^Provides-Extra: (\S+)$", facts.read_text(), re.MULTILINE)


def _install(target: Target, packages: Path) -> None:
    """The locked wheels. Asks PyPI only for those that the cache has not. Raises BuildError."""
    locked = ["--require-hashes", "--no-deps", "--requirement", target.lock, *target.pip_options()]
    unpack = ["install", "--quiet", "--no-compile", "--target", packages, *locked, "--find-links", target.wheels]
    try:
        pip(*unpack, **OFFLINE)
    except BuildError:
        shutil.rmtree(packages)
        packages.mkdir()
        target.wheels.mkdir(parents=True, exist_ok=True)
        pip("download", "--quiet", "--dest", target.wheels, *locked)
        pip(*unpack, **OFFLINE)


def _install_axond(packages: Path, version: str) -> None:
    """axond's own wheel, made from its source archive, so that both are known to be whole. Raises BuildError."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        do(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
        (archive,) = folder.glob("axond-*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder)
        (source,) = (path for path in folder.iterdir() if path.is_dir())
        project = source / "pyproject.toml"
        text, count = re.subn(r'(?m)^version = ".*"$', f'version = "{version}"', project.read_text(), count=1)
        if count != 1:
            raise BuildError('pyproject.toml: no line version = "..."')
        project.write_text(text)
        do(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "wheel", cwd=source)
        # By its name: of a path pip would write down where the wheel lay.
        found = ("--no-index", "--find-links", folder / "wheel", "--pre", "axond")
        pip("install", "--quiet", "--no-deps", "--no-compile", "--target", packages, *found, **OFFLINE)
