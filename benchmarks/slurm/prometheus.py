"""A Prometheus that finds the cluster's processes by their target files, with the shipped rules."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from benchmarks.slurm.node import TrialError, wait_until

URL = "http://127.0.0.1:9090"
CONFIG = """\
global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}}
rule_files: ["{rules}/*.yml"]
scrape_configs:
  - job_name: esper
    file_sd_configs: [{{files: ["{targets}/*.json"], refresh_interval: 1s}}]
"""


class Prometheus:
    """A server with its data in ``folder``; in a network namespace its port is free."""

    def __init__(self, folder: Path, targets: Path, rules: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "prometheus.yml").write_text(CONFIG.format(rules=rules, targets=targets))
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    "--web.listen-address=127.0.0.1:9090",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._ready, "Prometheus is ready")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{URL}/-/ready", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """An instant query's vector."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{URL}/api/v1/query?{query}", timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def count(self, expression: str) -> int:
        """How many series an expression has."""
        return len(self.query(expression))

    def wait_for(self, expression: str, series: int, seconds: float = 60.0) -> None:
        """Wait until an expression has so many series. Raises TrialError."""
        try:
            wait_until(lambda: self.count(expression) == series, expression, seconds)
        except TrialError:
            raise TrialError(
                f"{expression} has {self.count(expression)} series, not {series},"
                f" after {seconds:.0f} s"
            ) from None

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait(20)
