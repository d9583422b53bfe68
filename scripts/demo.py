"""Something to look at on 127.0.0.1:9108, with Prometheus and our rules beside it if installed.

usage: demo.py demo|replay [ARGUMENT...], those of `esper-exporter`; Ctrl-C ends both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esper_exporter.cli import main
from esper_exporter.commands.console import FAILED, OK

RULES = Path(__file__).parents[1] / "alerts" / "rules"
SCRAPE_SECONDS = 2
GRAPHS = (
    "esper_tamiyo_head_entropy_ratio",
    "esper_tamiyo_head_grad_norm",
)


def port_near(wanted: int) -> int:
    """The wanted port, or a free one when it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise SystemExit("no free port on 127.0.0.1")


@contextmanager
def prometheus(exporter_port: int) -> Iterator[str | None]:
    """A Prometheus that scrapes the exporter; its address, or None when it is not installed."""
    command = shutil.which("prometheus")
    if command is None:
        yield None
        return
    port = port_near(9090)
    with tempfile.TemporaryDirectory(prefix="esper-demo-") as name:
        folder = Path(name)
        (folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {SCRAPE_SECONDS}s, scrape_timeout: {SCRAPE_SECONDS}s,"
            f" evaluation_interval: {SCRAPE_SECONDS}s}}\n"
            f"rule_files: [{json.dumps(f'{RULES}/*.yml')}]\n"
            "scrape_configs:\n"
            "  - job_name: esper\n"
            f"    static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]\n"
        )
        arguments = [
            command,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
        if setpriv := shutil.which("setpriv"):
            # So that it ends with this process even when that is killed.
            arguments = [setpriv, "--pdeathsig", "TERM", *arguments]
        with (folder / "prometheus.log").open("wb") as log:
            # A session of its own: Ctrl-C is for the training, whose end it is still to see.
            process = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
        try:
            address = f"http://127.0.0.1:{port}"
            if not answers(process, address):
                last = (folder / "prometheus.log").read_text(errors="replace").strip()[-500:]
                print(f"Prometheus did not start: {last or 'it does not answer'}")
            yield address if process.poll() is None else None
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(process: subprocess.Popen[bytes], address: str) -> bool:
    """Wait until a server is ready, at most ten seconds."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"{address}/-/ready", timeout=1):
                return True
        except OSError:
            pass
        try:
            process.wait(0.1)
            return False
        except subprocess.TimeoutExpired:
            continue
    return False


def graph(server: str, expression: str) -> str:
    """The address of a graph of the last five minutes."""
    query = urllib.parse.urlencode({"g0.expr": expression, "g0.tab": "0", "g0.range_input": "5m"})
    return f"{server}/graph?{query}"


def asked_port(arguments: list[str]) -> int | None:
    """The port that the arguments ask for, if they do."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--port", type=int)
    port: int | None = parser.parse_known_args(arguments)[0].port
    return port


def run(arguments: list[str]) -> int:
    """Show the command until it ends or Ctrl-C comes."""
    port = asked_port(arguments) or port_near(9108)
    with prometheus(port) as server:
        print(f"exporter    http://127.0.0.1:{port}/  (the page: /metrics)")
        if server is None:
            print("Prometheus  not running; with it there are graphs: apt-get install prometheus")
        else:
            print(f"Prometheus  {server}/  (alerts: /alerts)")
            for expression in GRAPHS:
                print(f"            {graph(server, expression)}")
        print("Ctrl-C ends the demo.", flush=True)
        code = main([*arguments, "--port", str(port)])
        if server is not None and code not in (OK, FAILED):
            print(f"The alerts stay on {server}/alerts until Ctrl-C.", flush=True)
            signal.pause()
        return code


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(0)
