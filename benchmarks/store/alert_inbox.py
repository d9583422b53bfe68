"""In Alertmanager's place: keeps which alerts each sender has sent, with which labels, and when."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Labels = tuple[tuple[str, str], ...]


@dataclass
class Inbox:
    """Alerts by sender: an alert's labels, and when it was first sent as firing (Unix seconds)."""

    fired: dict[str, dict[Labels, float]] = field(default_factory=dict)
    annotations: dict[str, dict[Labels, dict[str, str]]] = field(default_factory=dict)
    port: int = 0

    def address(self, sender: str) -> str:
        """Where a sender posts its alerts to: HOST:PORT/SENDER."""
        return f"127.0.0.1:{self.port}/{sender}"


@contextmanager
def inbox() -> Iterator[Inbox]:
    """Take alerts on a free port of the loopback."""
    box = Inbox()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sender = self.path.split("/")[1]
            now = time.time()
            for alert in body:
                labels = tuple(sorted(alert["labels"].items()))
                ends = alert.get("endsAt", "")
                # An end that has passed: resolved. Both senders write times in UTC.
                if ends and ends[:19] < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)):
                    continue
                box.fired.setdefault(sender, {}).setdefault(labels, now)
                box.annotations.setdefault(sender, {})[labels] = alert.get("annotations", {})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    box.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield box
    finally:
        server.shutdown()
        server.server_close()
