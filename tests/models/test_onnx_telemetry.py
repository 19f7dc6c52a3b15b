"""ONNX Runtime (since 1.29) tells its maker of each device that runs it, unless it is asked not to."""

import subprocess
import sys
from pathlib import Path


def test_the_runtime_leaves_no_device_id_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "model", "verify", "activity"],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
