"""The alerting rules: what promtool says of them, and that they speak of what there is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from esper_exporter.health import (
    GRAD_NORM_CRITICAL,
    HEAD_ENTROPY_CRITICAL,
    LOG_PROB_CRITICAL,
    LOW_RETURN_VARIANCE_WARNING,
)
from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.metrics.metric import columns_of
from support.programs import program

ALERTS = Path(__file__).parents[1] / "alerts"
RULES = sorted((ALERTS / "rules").glob("*.yml"))
TARGET_LABELS = {"job", "instance"}


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


ALERTING = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


def promtool(*arguments: object) -> str:
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_nothing_wrong() -> None:
    assert "FAILED" not in promtool("check", "rules", "--lint-fatal", *RULES)


@pytest.mark.parametrize(
    "path", sorted((ALERTS / "tests").glob("*.yml")), ids=lambda path: path.stem
)
def test_alerts_fire_and_end_when_they_should(path: Path) -> None:
    promtool("test", "rules", path)


def test_every_alert_is_tested() -> None:
    tested = "".join(path.read_text() for path in (ALERTS / "tests").glob("*.yml"))
    for rule in ALERTING:
        name = rule["alert"]
        (fires,) = {"fires"} if re.search(rf"alertname: {name}\n +exp_alerts:\n", tested) else {""}
        assert fires, f"{name} is never seen to fire"
        assert name == "EsperWatchdog" or f"alertname: {name}, exp_alerts: []" in tested, name


def test_every_metric_and_label_is_in_the_catalogue() -> None:
    labels = {
        column.metric.name + column.suffix: {
            *column.metric.labels,
            *(name for name, _ in column.labels),
        }
        for metric in catalogue().metrics
        for column in columns_of(metric)
    }
    for rule in rules():
        expression = rule["expr"]
        for name, _, matchers in re.findall(r"\b(esper_\w+)(\{([^}]*)\})?", expression):
            assert name in labels or name in RECORDED, name
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
                assert label in labels[name] | TARGET_LABELS, f"{name}{{{label}}}"
        named = set(re.findall(r"\b(?:by|on) \(([^)]*)\)", expression))
        known = set().union(*labels.values()) | TARGET_LABELS
        assert {label.strip() for each in named for label in each.split(",")} <= known, expression


def test_every_alert_says_what_to_do_and_where_it_is_written() -> None:
    for rule in ALERTING:
        assert rule["labels"]["severity"] in {"critical", "warning", "none"}, rule["alert"]
        assert {"summary", "description", "runbook_url"} <= set(rule["annotations"]), rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"alerts/runbooks/{rule['alert']}.md"
    runbooks = {path.stem for path in (ALERTS / "runbooks").glob("*.md")} - {"README"}
    assert runbooks == {rule["alert"] for rule in ALERTING}
    index = (ALERTS / "runbooks" / "README.md").read_text()
    assert re.findall(r"\[(\w+)\]\(\1\.md\)", index) == sorted(runbooks)


def test_thresholds_in_words_are_those_of_health() -> None:
    (explosion,) = (rule for rule in ALERTING if rule["alert"] == "EsperGradientExplosion")
    assert f"above {GRAD_NORM_CRITICAL:g} in" in " ".join(
        explosion["annotations"]["description"].split()
    )
    (counted,) = (
        metric
        for metric in catalogue().metrics
        if metric.name == "esper_tamiyo_gradient_explosions_total"
    )
    assert f"{GRAD_NORM_CRITICAL:g}" in counted.help


@pytest.mark.parametrize(
    ("name", "comparison"),
    [
        ("EsperHeadEntropyCollapse", f"<= {HEAD_ENTROPY_CRITICAL:g}"),
        ("EsperLogProbUnderflow", f"<= {LOG_PROB_CRITICAL:g}"),
        ("EsperLowReturnVariance", f"> {LOW_RETURN_VARIANCE_WARNING:g}"),
    ],
)
def test_thresholds_are_those_of_health(name: str, comparison: str) -> None:
    (rule,) = (rule for rule in ALERTING if rule["alert"] == name)
    assert re.search(rf"{re.escape(comparison)}(\s|$)", rule["expr"])


def test_nobody_is_woken_by_what_is_no_fault() -> None:
    for rule in ALERTING:
        assert "explained_variance" not in rule["expr"]
        assert "numerical_instability" not in rule["expr"]
