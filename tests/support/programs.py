"""Programs that tests start: found or named with their install line, ended by their process id."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable

import pytest

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "chromium": "chromium",
    "docker-compose": "docker-compose",
}
"""The Debian package of each program."""


def program(name: str) -> str:
    """The path of a program; the test fails with the install line where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is missing: apt-get install {PACKAGES[name]}", pytrace=False)
    return path


def wait_until(
    condition: Callable[[], object], what: str, seconds: float = 20.0, every: float = 0.05
) -> None:
    """Poll what has no event to wait for, such as another process; fails when it stays false."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(every)


def end(process: subprocess.Popen[bytes], seconds: float = 10.0) -> int:
    """Ask a process that the test started to end, and wait for it; its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode
