"""`esper-exporter stack` and `make demo` with the servers of this machine, and what they leave."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from esper_exporter import Exporter
from esper_exporter.assets import assets
from support.command import COMMAND, Serving, environment, run
from support.installed import ROOT
from support.ports import free_port
from support.programs import program, wait_until

DEMO = (sys.executable, str(ROOT / "scripts" / "demo.py"))


@contextmanager
def started(command: tuple[object, ...], folder: Path, **variables: str) -> Iterator[Serving]:
    """A program whose temporary files go to a folder; ended with Ctrl-C, as a user would."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(TMPDIR=str(folder), **variables),
    )
    running = Serving(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(60)


def stack(*arguments: object) -> tuple[object, ...]:
    return (*COMMAND, "stack", *arguments)


PORTS = ("--prometheus-port", 0, "--alertmanager-port", 0, "--grafana-port", 0)


def api(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"{address}/api/v1/{path}", timeout=10) as answer:
        return json.load(answer)["data"]


def shipped_alerts() -> set[str]:
    """The names of all alerting rules that come with the package."""
    names = set()
    for name, path in assets().items():
        if name.match("alerts/rules/*.yml"):
            for group in yaml.safe_load(path.read_text())["groups"]:
                names |= {rule["alert"] for rule in group["rules"] if "alert" in rule}
    return names


def test_what_is_installed_runs_together_and_one_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    program("prometheus")
    program("prometheus-alertmanager")
    folder = tmp_path / "temporary"
    with (
        Exporter(port=0) as exporter,
        started(
            stack("--target", f"127.0.0.1:{exporter.port}", "--interval", 1, *PORTS), folder
        ) as running,
    ):
        prometheus = running.wait_for(r"^Prometheus +(http://127\.0\.0\.1:\d+)/.*alerts")[1]
        alertmanager = running.wait_for(r"^Alertmanager +(http://127\.0\.0\.1:\d+) ")[1]
        running.wait_for("^Grafana +missing. Debian has none: unpack a release")

        def health() -> dict[str, str]:
            targets = api(prometheus, "targets")["activeTargets"]
            return {one["labels"]["job"]: one["health"] for one in targets}

        everything = {"esper": "up", "prometheus": "up", "alertmanager": "up"}
        wait_until(lambda: health() == everything, "all targets are up")
        groups = api(prometheus, "rules?type=alert")["groups"]
        assert {r["name"] for group in groups for r in group["rules"]} == shipped_alerts()
        routed = api(prometheus, "alertmanagers")["activeAlertmanagers"]
        assert [one["url"] for one in routed] == [f"{alertmanager}/api/v2/alerts"]
        with urllib.request.urlopen(f"{alertmanager}/api/v2/status", timeout=10) as answer:
            config = json.load(answer)["config"]["original"]
        assert "dead-mans-switch" in config
        links = [re.search(r"http://\S+", line) for line in running.said]
        for link in filter(None, links):
            if link[0].startswith(prometheus):
                with urllib.request.urlopen(link[0], timeout=10) as answer:
                    assert answer.status == 200, link[0]
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0
    assert list(folder.iterdir()) == []


def test_a_taken_port_is_named_with_its_holder_and_another_one_is_used(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = ("--prometheus-port", port, "--alertmanager-port", 0)
        with started(stack(*ports), tmp_path / "temporary") as running:
            reported = running.wait_for(
                rf"^Prometheus +port {port} is taken by pid {os.getpid()} .*; using (\d+) instead"
            )
            running.wait_for(rf"^Prometheus +http://127\.0\.0\.1:{reported[1]}/")


GRAFANA = """#!{python}
import http.server, json, os, sys
json.dump([sys.argv[1:], dict(os.environ)], open({record!r}, "w"))
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{{}}")
    def log_message(self, *_): pass
address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(address, Healthy).serve_forever()
"""


def test_an_unpacked_grafana_gets_data_sources_dashboards_and_no_known_password(
    tmp_path: Path,
) -> None:
    """With a stand-in that records how it is called: there is no Grafana here."""
    home = tmp_path / "grafana"
    (home / "bin").mkdir(parents=True)
    (home / "conf").mkdir()
    (home / "conf" / "defaults.ini").touch()
    record = tmp_path / "record.json"
    server = home / "bin" / "grafana"
    server.write_text(GRAFANA.format(python=sys.executable, record=str(record)))
    server.chmod(0o755)
    with started(stack("--grafana", home, *PORTS), tmp_path / "temporary") as running:
        running.wait_for(r"^Grafana +http://127\.0\.0\.1:\d+/dashboards")
        prometheus = running.wait_for(r"^Prometheus +(http://127\.0\.0\.1:\d+)/")[1]
        arguments, variables = json.loads(record.read_text())
        assert arguments == ["server", "--homepath", str(home)]
        assert variables["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
        assert variables["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
        assert len(variables["GF_SECURITY_ADMIN_PASSWORD"]) > 20
        provisioning = Path(variables["GF_PATHS_PROVISIONING"])
        sources = yaml.safe_load((provisioning / "datasources" / "esper.yml").read_text())
        assert sources["datasources"][0]["url"] == prometheus
        assert [one["uid"] for one in sources["datasources"]] == ["prometheus", "alertmanager"]
        (provider,) = yaml.safe_load((provisioning / "dashboards" / "esper.yml").read_text())[
            "providers"
        ]
        boards = Path(provider["options"]["path"])
        assert {path.name for path in boards.glob("*.json")} >= {"esper-fleet.json"}


def test_prometheus_in_an_unpacked_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "prometheus").symlink_to(program("prometheus"))
    with started(
        stack("--prometheus", tmp_path / "release", *PORTS),
        tmp_path / "temporary",
        PATH="/nowhere",
    ) as running:
        running.wait_for(r"^Prometheus +http://")
        running.wait_for(r"^Alertmanager +missing. apt-get install prometheus-alertmanager")


@pytest.mark.parametrize(
    ("arguments", "variables", "message", "code"),
    [
        ((), {"PATH": "/nowhere"}, "Prometheus is missing: apt-get install prometheus", 1),
        (("--prometheus", "absent"), {}, "--prometheus absent: does not exist", 1),
        (("--prometheus", "."), {}, "--prometheus .: contains no executable prometheus", 1),
        (("--alertmanager-config", "absent"), {}, "absent: No such file or directory", 1),
        (("--target", "9108"), {}, "'9108' is not an address; write HOST:PORT", 2),
        (("--interval", "often"), {}, "'often' is not a number", 2),
        (("--prometheus-port", "70000"), {}, "70000 is not a port", 2),
    ],
)
def test_a_stack_that_cannot_start_says_why_in_a_sentence(
    arguments: tuple[str, ...],
    variables: dict[str, str],
    message: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    done = run("stack", *arguments, **variables, TMPDIR=str(tmp_path / "temporary"))
    assert done.returncode == code
    assert message in done.stderr.decode().splitlines()[-1]
    assert list((tmp_path / "temporary").iterdir()) == []


# -- make demo ----------------------------------------------------------------------------------


def test_the_demo_names_its_page_first_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    command = (*DEMO, "replay", "--recording", "run1", "--port", free_port())
    with started(command, folder) as running:
        running.wait_for(r"each head's gradient norm: http://")
        # Only a port that another program has may be named before.
        first = next(line for line in running.said if " is taken by " not in line)
        assert re.match(r"open http://127\.0\.0\.1:\d+; ", first)
        prometheus = running.wait_for(r"^Prometheus +(http://127\.0\.0\.1:\d+)/")[1]
        wait_until(
            lambda: api(prometheus, "query?query=esper_run_active")["result"],
            "Prometheus has the recording's run",
            seconds=40,
        )
        running.process.send_signal(signal.SIGINT)
        running.process.wait(60)
    wait_until(lambda: not list(folder.iterdir()), "its folders are gone")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_ended_from_outside_leaves_no_server_and_no_folder(
    number: int, tmp_path: Path
) -> None:
    folder = tmp_path / "temporary"
    command = (*DEMO, "replay", "--recording", "run1", "--port", free_port())
    with started(command, folder) as running:
        prometheus = running.wait_for(r"^Prometheus +http://127\.0\.0\.1:(\d+)/")[1]
        assert len(list(folder.iterdir())) == 2
        running.process.send_signal(number)
        running.process.wait(60)
        wait_until(lambda: not list(folder.iterdir()), "its folders are gone", seconds=60)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", int(prometheus)), 2).close()


@pytest.mark.parametrize(
    "arguments",
    [("demo", "--inject", "fire"), ("demo", "--port"), ("replay", "--speed", "x"), ("replay",)],
)
def test_wrong_arguments_of_make_demo_fail_with_its_usage_before_anything_starts(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "check-arguments", *arguments],
        capture_output=True,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
        check=False,
    )
    assert done.returncode == 2
    assert re.match(r"usage: make demo(-replay)? ARGS=…", done.stderr)
    assert "error: " in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_without_prometheus_the_demo_shows_its_page_and_says_what_is_missing(
    tmp_path: Path,
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    shell = shutil.which("sh")
    assert shell is not None
    (tools / "sh").symlink_to(shell)
    command = (*DEMO, "replay", "--recording", "run2b", "--speed", 0, "--port", free_port())
    with started(command, tmp_path / "temporary", PATH=str(tools)) as running:
        running.wait_for(r"Prometheus +missing; .* apt-get install prometheus")
        running.wait_for(r"^open http://")
        running.wait_for("replayed 776 lines")
