"""A reader never gets half a publication, also of a writer that was killed amid one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_readings_beside_writers_that_are_killed_are_whole() -> None:
    trial = ["--reads", "5000", "--kills", "10", "--writers", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.torn", *trial],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of 5,000 readings torn" in done.stdout
    assert "10 of 10 pages whole" in done.stdout
