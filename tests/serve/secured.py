"""A folder with an authority, certificates and a web configuration, for the tests of security."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import bcrypt

from esper_exporter.serve.server import MetricsServer
from serve.certificates import Authority
from serve.clients import curl

Serve = Callable[..., MetricsServer]
TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
MUTUAL = TLS + "  client_ca_file: authority.pem\n  client_auth_type: RequireAndVerifyClientCert\n"


def hashed(password: str, rounds: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds)).decode()


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


USERS = f"basic_auth_users:\n  alice: {hashed('right')}\n"


class House:
    """A folder with an authority, a server certificate and a web configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.authority.issue("server")
        self.config = folder / "web.yml"

    def write(self, text: str) -> Path:
        self.config.write_text(text)
        self.age()
        return self.config

    def age(self) -> None:
        """As if the files had been written a while ago, each time another while."""
        for path in self.folder.iterdir():
            if path.is_file() and time.time() - path.stat().st_mtime < 5:
                os.utime(path, (time.time() - 10, time.time() - 10))

    def curl(self, server: MetricsServer, *arguments: str) -> object:
        """The status of a scrape with the authority trusted, 0 without an answer."""
        trust = ("--cacert", str(self.authority.path))
        return curl(*trust, *arguments, f"{server.url}/metrics").status

    def as_client(self, name: str, **options: object) -> Sequence[str]:
        pair = self.authority.issue(name, client=True, **options)  # type: ignore[arg-type]
        return ("--cert", str(pair.certificate), "--key", str(pair.key))


def next_check(server: MetricsServer) -> None:
    """Make the server look at its files at the next opportunity, not after a second."""
    assert server._watched is not None
    server._watched._checked = float("-inf")
