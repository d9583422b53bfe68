"""The sharding of docs/SCALE.md: each run is scraped by exactly one of several servers."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.programs import program, wait_until
from support.prometheus import Prometheus, prometheus

pytestmark = pytest.mark.e2e

SCALE = Path(__file__).parents[2] / "docs" / "SCALE.md"
RUNS, RANKS = 20, 2


def documented(servers: int, number: int) -> list[dict[str, Any]]:
    """The relabelling of the document, for one of so many servers."""
    (text,) = re.findall(r"```yaml\n(relabel_configs:.*?)```", SCALE.read_text(), re.DOTALL)
    rules: list[dict[str, Any]] = yaml.safe_load(text)["relabel_configs"]
    assert [rule["action"] for rule in rules] == ["hashmod", "keep"]
    rules[0]["modulus"] = servers
    rules[1]["regex"] = str(number)
    return rules


def scraped(server: Prometheus) -> set[str]:
    return {target["labels"]["instance"] for target in server.targets()}


def test_the_documented_configuration_is_valid(tmp_path: Path) -> None:
    job = {"job_name": "esper", "relabel_configs": documented(4, 0)}
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    subprocess.run([program("promtool"), "check", "config", path], check=True, capture_output=True)


def test_two_servers_share_the_runs_and_keep_the_ranks_of_each_together(tmp_path: Path) -> None:
    groups = [
        {
            "targets": [f"127.0.0.{run + 1}:{1 + rank}"],
            "labels": {"__meta_esper_run_id": f"run-{run}"},
        }
        for run in range(RUNS)
        for rank in range(RANKS)
    ]
    (tmp_path / "targets.json").write_text(json.dumps(groups))
    discovery = {"file_sd_configs": [{"files": [str(tmp_path / "targets.json")]}]}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                prometheus(
                    tmp_path / str(number),
                    [],
                    interval="10s",
                    scrape={**discovery, "relabel_configs": documented(2, number)},
                )
            )
            for number in range(2)
        ]
        everything = {target for group in groups for target in group["targets"]}
        wait_until(
            lambda: scraped(servers[0]) | scraped(servers[1]) == everything,
            "both servers know their targets",
            seconds=120,
        )
        shares = [scraped(server) for server in servers]
        assert not shares[0] & shares[1]
        hosts = [{target.rpartition(":")[0] for target in share} for share in shares]
        assert not hosts[0] & hosts[1]
        assert all(hosts)
