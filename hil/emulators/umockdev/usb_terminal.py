"""Answers ioctls on terminals for processes that run under umockdev's preload library: the real terminal does.

Run by a Python that has ``gi`` and UMockdev-1.0 (Debian: umockdev, gir1.2-umockdev-1.0, python3-gi). Prints the
testbed's folder; ends with its standard input.
"""

import sys
from typing import Any

import gi

gi.require_version("UMockdev", "1.0")
from gi.repository import UMockdev  # noqa: E402 - only after the version is required

NODE = "/dev/terminal"


class Terminal(UMockdev.IoctlBase):  # type: ignore[misc] # the library has no types
    def do_handle_ioctl(self, client: Any) -> bool:
        client.complete(*client.execute())
        return True


def main() -> None:
    testbed = UMockdev.Testbed.new()
    testbed.attach_ioctl(NODE, Terminal())
    print(testbed.get_root_dir(), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
