"""A process that plays one of the serial sensors, as their emulators' ``CASES`` tell.

``python -m hil.bench.play CASE LINK`` plays until its standard input ends, then tells what the line dropped.
"""

import json
import sys
from pathlib import Path

from hil.emulators.case import cases


def main() -> int:
    """Play the case that the first argument names on the link that the second one names."""
    name, link = sys.argv[1:3]
    known = cases()
    if name not in known:
        print(f"there is no case {name!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    with known[name].emulator(Path(link)) as emulator:
        print("ready", flush=True)
        sys.stdin.read()
        dropped = emulator.dropped_rows
    print(json.dumps({"dropped_rows": dropped}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
