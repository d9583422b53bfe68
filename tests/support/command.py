"""The command ``esper-exporter`` as users run it: a separate process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from support.programs import end

SOURCE = Path(__file__).parents[2] / "exporter"
COMMAND = (sys.executable, "-m", "esper_exporter")


def environment(**more: str) -> dict[str, str]:
    """The environment of a test's processes: ours, without the exporter's own variables, and the
    machine that runs the tests is not sampled."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ESPER_") and name != "PYTHONUNBUFFERED"
    }
    vitals = dict.fromkeys(("ESPER_EXPORTER_GPU_VITALS", "ESPER_EXPORTER_HOST_VITALS"), "off")
    return {**kept, **vitals, "PYTHONPATH": str(SOURCE), **more}


def run(
    *arguments: object, stdin: bytes | None = None, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=b"" if stdin is None else stdin,
        capture_output=True,
        env=environment(**variables),
        timeout=60,
        check=False,
    )


class Serving:
    """A running ``esper-exporter replay``; made by ``serving``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.said: list[str] = []
        self._changed = threading.Condition()
        self._silent = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.said.append(line.decode().rstrip())
                self._changed.notify_all()
        with self._changed:
            self._silent = True
            self._changed.notify_all()

    def wait_for(self, pattern: str, seconds: float = 120.0) -> re.Match[str]:
        """Wait for a line on standard error that matches the pattern."""

        def found() -> re.Match[str] | None:
            return next((m for line in self.said if (m := re.search(pattern, line))), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._silent, seconds)
            match = found()
        if match is None:
            reported = "\n".join(self.said)
            pytest.fail(
                f"{pattern!r} did not appear within {seconds:g} s; standard error:\n{reported}"
            )
        return match

    @property
    def address(self) -> str:
        """``HOST:PORT`` of the page."""
        return self.wait_for(r"serving \w+://([^/]+)/metrics")[1]

    def page(self, headers: Mapping[str, str] = MappingProxyType({})) -> str:
        """The page as it is now."""
        request = urllib.request.Request(f"http://{self.address}/metrics", headers=dict(headers))
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def end(self) -> int:
        """Ask it to end, and wait; its exit code."""
        code = end(self.process)
        self._reader.join(10)
        return code


@contextmanager
def serving(*arguments: object, **variables: str) -> Iterator[Serving]:
    """``esper-exporter replay ARGUMENTS`` on a free port, ended with the context."""
    process = subprocess.Popen(
        [*COMMAND, "replay", "--port", "0", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
    )
    running = Serving(process)
    try:
        yield running
    finally:
        running.end()
        assert process.stdin is not None
        process.stdin.close()
