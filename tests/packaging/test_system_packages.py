"""``packaging/system-packages`` with an ``apt-get`` of ours: what it asks for, and what it leaves behind."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "packaging" / "system-packages"
POLICY = "/usr/sbin/policy-rc.d"
TOOLS = ("id", "grep", "tee", "chmod", "rm", "env", "sh", "cat")


class Machine:
    """A copy of the script that sees only the programs of ``bin``, and a policy of its own."""

    def __init__(self, folder: Path, apt_get: str) -> None:
        self.bin, self.policy, self.asked = folder / "bin", folder / "policy-rc.d", folder / "asked"
        self.bin.mkdir()
        for name in TOOLS:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self._add("apt-get", f'echo "$@" >>{self.asked}\n[ "$1" = install ] || exit 0\n{apt_get}')
        self._add("sudo", '[ "$1" = -n ] && shift\nexec "$@"')
        self.script = folder / "system-packages"
        text = SCRIPT.read_text()
        assert POLICY in text
        self.script.write_text(text.replace(POLICY, str(self.policy)))

    def _add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["/bin/sh", str(self.script), *arguments],
            env={"PATH": str(self.bin)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def installed(self) -> list[str]:
        asked = [line.split() for line in self.asked.read_text().splitlines()]
        return [words[-1] for words in asked if words[0] == "install"]


@pytest.mark.parametrize(("arguments", "wanted"), [((), set()), (("test",), {"umockdev", "gir1.2-umockdev-1.0"})])
def test_the_tests_ask_for_more_than_the_demo(tmp_path: Path, arguments: tuple[str, ...], wanted: set[str]) -> None:
    machine = Machine(tmp_path, 'case "$*" in *espeak-ng*) exit 100;; esac')
    said, _ = (process := machine.start(*arguments)).communicate(timeout=30)
    assert process.returncode == 0
    asked = set(machine.installed())
    assert {"espeak-ng"} | wanted <= asked
    assert wanted or not any("umockdev" in name for name in asked)
    assert "axond: no espeak-ng (apt install espeak-ng)" in said
    assert not machine.policy.exists()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_installation_leaves_no_policy_behind(tmp_path: Path, sign: signal.Signals) -> None:
    working, for_ever = tmp_path / "working", tmp_path / "for_ever"
    for pipe in (working, for_ever):
        os.mkfifo(pipe)
    machine = Machine(tmp_path, f"echo begun >{working}\nexec cat {for_ever}")
    # Whoever runs the tests in the background has them ignore some signals, and a shell cannot trap what it ignores.
    before = signal.signal(sign, signal.SIG_DFL)
    try:
        process = machine.start()
    finally:
        signal.signal(sign, before)
    try:
        assert working.read_text() == "begun\n"
        assert "exit 101" in machine.policy.read_text()
        os.killpg(process.pid, sign)
        assert process.wait(30) == 128 + sign
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not machine.policy.exists()


def test_somebody_elses_policy_is_left_alone_and_a_forgotten_one_of_ours_is_removed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "exit 0")
    machine.policy.write_text("#!/bin/sh\nexit 0\n")
    machine.start().communicate(timeout=30)
    assert machine.policy.read_text() == "#!/bin/sh\nexit 0\n"
    machine.policy.write_text("#!/bin/sh\n# axond: packaging/system-packages\nexit 101\n")
    machine.start().communicate(timeout=30)
    assert not machine.policy.exists()
