"""A real Alertmanager with the shipped routes; a web server of the test receives."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from support.ports import free_port
from support.programs import end, program, wait_until

ALERTS = Path(__file__).parents[2] / "alerts"


class Alertmanager:
    """A running server and the notifications it has sent; made by ``alertmanager``."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self.received: list[tuple[float, str, dict[str, Any]]] = []
        """When it came (monotonic seconds), the receiver, and the alert: status, labels …"""
        self.messages: list[dict[str, Any]] = []
        """The notifications as they came, each with the alerts of its group."""
        self._process = process
        self._log = log

    def notified(self, receiver: str, **labels: str) -> list[float]:
        """When this receiver got a firing alert with these labels, in monotonic seconds."""
        return [
            when
            for when, name, alert in list(self.received)
            if name == receiver
            and alert["status"] == "firing"
            and labels.items() <= alert["labels"].items()
        ]

    def post(self, alerts: Sequence[Mapping[str, str]]) -> None:
        """Alerts by their labels, as Prometheus would send them."""
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        request = urllib.request.Request(
            f"http://{self.address}/api/v2/alerts", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def knows(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels is active or suppressed."""
        with urllib.request.urlopen(f"http://{self.address}/api/v2/alerts", timeout=10) as answer:
            return any(labels.items() <= alert["labels"].items() for alert in json.load(answer))

    def is_ready(self) -> bool:
        """Whether it takes alerts."""
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def shipped() -> dict[str, Any]:
    """The shipped configuration, with the templates where they are in the repository."""
    text = (ALERTS / "alertmanager.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(
        text.replace("/etc/alertmanager/templates", str(ALERTS / "templates"))
    )
    return found


@contextmanager
def alertmanager(
    folder: Path, group_wait: str = "1s", port: int | None = None
) -> Iterator[Alertmanager]:
    """An Alertmanager with the shipped configuration, every receiver a webhook of this process.

    Only the wait before a group's first notification is shortened, to ``group_wait``. A second one
    in the same ``folder`` and on the same ``port`` is the first one restarted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, hook_port = port or free_port(), free_port()
    config = shipped()
    config["route"]["group_wait"] = group_wait
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": f"http://127.0.0.1:{hook_port}/{receiver['name']}"}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            now = time.monotonic()
            server.messages.append(body)
            server.received += [(now, body["receiver"], alert) for alert in body["alerts"]]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Hooks(ThreadingHTTPServer):
        # All groups of a configuration may be notified at once.
        request_queue_size = 256

    hook = Hooks(("127.0.0.1", hook_port), Hook)
    log = folder / "alertmanager.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program("prometheus-alertmanager"),
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Alertmanager(port, process, log)
    thread = threading.Thread(target=hook.serve_forever, daemon=True)
    thread.start()
    try:
        wait_until(server.is_ready, "Alertmanager answers", 30.0, every=0.1)
        yield server
    finally:
        end(process)
        hook.shutdown()
        thread.join()
        hook.server_close()
