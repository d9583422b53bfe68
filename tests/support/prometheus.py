"""A real Prometheus server that scrapes what a test serves."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from support.ports import free_port
from support.programs import end, program, wait_until


class Prometheus:
    """A running server; made by ``prometheus``."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._process = process

    def api(self, path: str, **parameters: object) -> Any:
        """The ``data`` of an answer of the HTTP API, /api/v1/PATH."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """An instant query's vector: the value by sorted labels."""
        result = self.api("query", query=expression)["result"]
        return {tuple(sorted(s["metric"].items())): float(s["value"][1]) for s in result}

    def value(self, expression: str) -> float | None:
        """The only value of an instant query; None while it has none."""
        found = list(self.query(expression).values())
        assert len(found) <= 1, f"{expression} has {len(found)} series"
        return found[0] if found else None

    def samples(self, selector: str, window: str = "1h") -> dict[Any, list[tuple[float, float]]]:
        """All stored samples of a selector, (time, value) by sorted labels."""
        result = self.api("query", query=f"{selector}[{window}]")["result"]
        return {
            tuple(sorted(s["metric"].items())): [(t, float(v)) for t, v in s["values"]]
            for s in result
        }

    def targets(self) -> list[Any]:
        """The active targets with their health and last error."""
        found: list[Any] = self.api("targets", state="active")["activeTargets"]
        return found

    def wait_for(self, expression: str, expected: float, seconds: float = 30.0) -> None:
        """Wait until a query has this one value."""
        wait_until(
            lambda: self.value(expression) == expected,
            f"{expression} == {expected}",
            seconds,
            every=0.2,
        )

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        assert self._process.poll() is None, f"Prometheus ended: {self.log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def prometheus(
    folder: Path,
    targets: Sequence[str],
    *,
    interval: str = "1s",
    scrape: Mapping[str, Any] | None = None,
    rule_files: Sequence[Path] = (),
    alertmanagers: Sequence[str] = (),
    receives: bool = False,
    port: int | None = None,
) -> Iterator[Prometheus]:
    """A Prometheus with its data in ``folder`` that scrapes ``targets`` (``HOST:PORT``).

    ``scrape`` is merged into the job ``esper`` (scheme, basic_auth …). ``rule_files`` are
    evaluated every ``interval``, their alerts go to ``alertmanagers`` (``HOST:PORT``). With
    ``receives`` it takes remote write. A second one in the same ``folder`` and on the same ``port``
    is the first one restarted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "evaluation_interval": interval,
        },
        "scrape_configs": [
            {
                "job_name": "esper",
                "static_configs": [{"targets": list(targets)}],
                **(scrape or {}),
            }
        ],
        "rule_files": [str(path) for path in rule_files],
    }
    if alertmanagers:
        config["alerting"] = {
            "alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]
        }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = port or free_port()
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
                *(["--web.enable-remote-write-receiver"] if receives else []),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Prometheus(port, process, log)
        wait_until(server.is_ready, "Prometheus answers", 30.0, every=0.1)
        yield server
    finally:
        end(process)
