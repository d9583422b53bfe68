"""What the rules say of the recordings of the real system: of a run without a fault, a warning."""

from __future__ import annotations

import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from support.command import run
from support.programs import program
from support.prometheus import Prometheus, prometheus
from support.recordings import telemetry

FILES = sorted((Path(__file__).parents[2] / "alerts" / "rules").glob("*.yml"))
RULES = [
    rule
    for path in FILES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
STEP = 5


def raised(server: Prometheus, rule: dict[str, Any], began: float, ended: float) -> bool:
    """Whether a series of the rule is there for as long as the rule wants, without a gap."""
    minutes = int(re.sub(r"\D", "", rule.get("for", "0m")))
    answer = server.api("query_range", query=rule["expr"], start=began, end=ended, step=STEP)
    for series in answer["result"]:
        times = [float(when) for when, _ in series["values"]]
        first = times[0]
        for before, after in pairwise(times):
            first = after if after - before > STEP else first
            if after - first >= 60 * minutes:
                return True
        if minutes == 0:
            return True
    return False


def record(server: Prometheus, data: Path, began: float, ended: float) -> None:
    """Add what the recording rules would have recorded, which alerts read."""
    made = subprocess.run(
        [
            *(program("promtool"), "tsdb", "create-blocks-from", "rules", "--url", server.url),
            *(f"--start={began:.0f}", f"--end={ended:.0f}", f"--eval-interval={STEP}s"),
            *(f"--output-dir={data}", *FILES),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr


def alerts_of(name: str, folder: Path) -> set[tuple[str, str]]:
    """Alert and severity of all that is raised while a recording runs, scraped every 15 s."""
    out = folder / f"{name}.om"
    done = run("backfill", telemetry(name), "--out", out)
    assert done.returncode == 0, done.stderr
    made = subprocess.run(
        [
            *(program("promtool"), "tsdb", "create-blocks-from", "openmetrics"),
            *(out, folder / name / "data"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    times = [
        float(line.rsplit(" ", 1)[1]) for line in out.read_text().splitlines() if line[0] != "#"
    ]
    began, ended = float(int(min(times))), max(times) + 2 * STEP
    with prometheus(folder / name, []) as server:
        record(server, folder / name / "data", began, ended)
    with prometheus(folder / name, []) as server:
        return {
            (rule["alert"], rule["labels"]["severity"])
            for rule in RULES
            if rule["alert"] != "EsperWatchdog" and raised(server, rule, began, ended)
        }


def test_an_untrained_policy_without_a_fault_raises_nothing(tmp_path: Path) -> None:
    # Its gradient norm exceeds 10 again and again: that is how it always was.
    assert alerts_of("run1", tmp_path) == set()


def test_heads_that_are_not_finite_are_seen_in_eight_seconds(tmp_path: Path) -> None:
    assert alerts_of("run2b", tmp_path) == {
        ("EsperHeadNonFiniteLatched", "critical"),
        ("EsperNonFiniteLatched", "critical"),
        ("EsperNonFiniteLately", "none"),
        ("EsperUpdatesSkipped", "warning"),
    }
