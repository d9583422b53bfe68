"""A server of the stack as a process: its port, start, readiness and end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from esper_exporter.serve.listening import holder

START_SECONDS = 60.0
END_SECONDS = 10.0


def free_port(wanted: int) -> tuple[int, str | None]:
    """The wanted loopback port, or a free one with the process that holds the wanted one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found, None if found == wanted or not wanted else holder(wanted)
    raise OSError("127.0.0.1 has no free port")


class Server:
    """One started program with its log; ended by ``end``."""

    def __init__(
        self,
        title: str,
        command: Sequence[str],
        address: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.title = title
        self.address = address
        self._log = log
        arguments = list(command)
        if setpriv := shutil.which("setpriv"):
            # Ends the server with this process, even after SIGKILL.
            arguments = [setpriv, "--pdeathsig", "TERM", *arguments]
        with log.open("wb") as file:
            # A separate session: Ctrl-C goes to the stack, which then ends the servers.
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def wait_until_ready(self, path: str, stopping: threading.Event) -> bool:
        """Wait until it answers ``path``; False if it ended, a minute passed, or a stop came."""
        waited = 0.0
        while self.running and waited < START_SECONDS and not stopping.is_set():
            if answers(f"http://{self.address}{path}"):
                return True
            stopping.wait(0.1)
            waited += 0.1
        return False

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1][-300:] if lines else "it printed nothing"

    def end(self) -> None:
        """Ask the process to end, and wait for it."""
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def answers(url: str) -> bool:
    """Whether the address answers with success, without following redirects."""
    try:
        with _OPENER.open(url, timeout=2) as answer:
            return bool(200 <= answer.status < 300)
    except (OSError, ValueError):
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


# Loopback: never through a proxy from the environment.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
