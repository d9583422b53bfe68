"""The alerting rules: what promtool says of them, and that they speak of what there is."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from esper_exporter import health as h
from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.metrics.metric import columns_of
from esper_exporter.settings import Settings
from support.command import run
from support.programs import program

ALERTS = Path(__file__).parents[1] / "alerts"
RULES = sorted((ALERTS / "rules").glob("*.yml"))
TARGET_LABELS = {"cluster", "job", "instance"}


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


@pytest.mark.parametrize("name", ["gradients", "ended"])
def test_alerts_fire_as_well_where_targets_have_one_more_label(name: str, tmp_path: Path) -> None:
    """What one side of an ``and`` has lost by a division or a sum has to be named by ``on``."""
    told = yaml.safe_load((ALERTS / "tests" / f"{name}.yml").read_text())
    told["rule_files"] = [str(ALERTS / "tests" / path) for path in told["rule_files"]]
    for test in told["tests"]:
        for each in test["input_series"]:
            each["series"] = each["series"].replace("{", '{team="x",', 1)
        counted = [
            {
                "expr": f'count(ALERTS{{alertname="{each["alertname"]}",alertstate="firing"}})',
                "eval_time": each["eval_time"],
                "exp_samples": [{"labels": "{}", "value": len(each["exp_alerts"])}]
                if each["exp_alerts"]
                else [],
            }
            for each in test.pop("alert_rule_test", [])
        ]
        test["promql_expr_test"] = [*test.get("promql_expr_test", []), *counted]
    path = tmp_path / "labelled.yml"
    path.write_text(yaml.safe_dump(told))
    promtool("test", "rules", path)


def test_every_alert_is_tested() -> None:
    fires: set[str] = set()
    rests: set[str] = {"EsperWatchdog"}
    for path in (ALERTS / "tests").glob("*.yml"):
        for test in yaml.load(path.read_text(), yaml.CSafeLoader)["tests"]:
            for each in test.get("alert_rule_test", []):
                (fires if each["exp_alerts"] else rests).add(each["alertname"])
    for name in (rule["alert"] for rule in ALERTING):
        assert name in fires, f"no test in alerts/tests sees {name} fire"
        assert name in rests, f"no test in alerts/tests sees {name} not fire (exp_alerts: [])"


def test_every_recorded_series_is_tested_and_says_level_metric_and_operation() -> None:
    tested = "".join(path.read_text() for path in (ALERTS / "tests").glob("*.yml"))
    for name in RECORDED:
        assert re.fullmatch(r"[a-z_]+:esper_[a-z0-9_]+:[a-z0-9_]+", name)
        assert re.search(rf"expr: '(round\()?{name}\b", tested), name


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
        assert set(re.findall(r"\b[a-z_]+:esper_\w+:\w+", expression)) <= RECORDED, expression
        for name, _, matchers in re.findall(r"(?<![:\w])(esper_\w+)(\{([^}]*)\})?", expression):
            assert name in labels, name
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
                assert label in labels[name] | TARGET_LABELS, f"{name}{{{label}}}"
        named = set(re.findall(r"\b(?:by|on) \(([^)]*)\)", expression))
        known = set().union(*labels.values()) | TARGET_LABELS
        listed = {label.strip() for each in named for label in each.split(",")}
        assert listed - {""} <= known, expression


def test_every_alert_says_what_to_do_and_where_it_is_written() -> None:
    for rule in ALERTING:
        assert rule["labels"]["severity"] in {"critical", "warning", "none"}, rule["alert"]
        assert {"summary", "description", "runbook_url", "dashboard_url"} <= set(
            rule["annotations"]
        ), rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"alerts/runbooks/{rule['alert']}.md"
    runbooks = {path.stem for path in (ALERTS / "runbooks").glob("*.md")} - {"README"}
    assert runbooks == {rule["alert"] for rule in ALERTING}
    index = (ALERTS / "runbooks" / "README.md").read_text()
    assert re.findall(r"\[(\w+)\]\(\1\.md\)", index) == sorted(runbooks)


def test_what_counts_as_an_exploding_gradient_is_the_run_s_own_limit() -> None:
    limit = "above esper_tamiyo_explosion_grad_norm"
    names = {metric.name: metric for metric in catalogue().metrics}
    assert limit in names["esper_tamiyo_gradient_explosions_total"].help
    assert "esper_tamiyo_explosion_grad_norm" in names
    assert Settings().explosion_norm == h.GRAD_NORM_CRITICAL
    (rule,) = (rule for rule in ALERTING if rule["alert"] == "EsperGradientExplosion")
    assert limit in " ".join(rule["annotations"]["description"].split())


THRESHOLDS = {
    "EsperGradientExplosion": [
        f"> {h.EXPLODING_UPDATES_SHARE:g}",
        f"<= {h.GRAD_NORM_ENORMOUS:g}",
        f"{h.EXPLOSION_OF_MEDIANS:g} * histogram_quantile(0.5,",
    ],
    "EsperGradientSpike": [f"> {h.SPIKE_OF_MEDIANS:g}", f">= {h.SPIKE_UPDATES}"],
    "EsperGradientVanishing": [
        f'le="{h.HEAD_GRAD_NORM_DEAD}"',
        f"> {h.VANISHING_UPDATES_SHARE:g}",
        f">= {h.ALERT_UPDATES}",
    ],
    "EsperLayersDied": [f">= {h.ALERT_UPDATES}"],
    "EsperLayersExploding": [f">= {h.ALERT_UPDATES}"],
    "EsperHeadGradientOutOfRange": [
        f'le="{h.HEAD_GRAD_NORM_DEAD}"',
        f'le="{h.HEAD_GRAD_NORM_EXPLODING}"',
        f"> {h.HEAD_OUT_OF_RANGE_SHARE:g}",
        f">= {h.ALERT_UPDATES}",
    ],
    "EsperHeadEntropyCollapse": [f"<= {h.HEAD_ENTROPY_CRITICAL:g}", f">= {h.ALERT_UPDATES}"],
    "EsperLogProbUnderflow": [f"<= {h.LOG_PROB_CRITICAL:g}"],
    "EsperLowReturnVariance": [f"> {h.LOW_RETURN_VARIANCE_WARNING:g}", f">= {h.ALERT_UPDATES}"],
    "EsperKlDivergenceHigh": [f"> {h.KL_CRITICAL:g}", f">= {h.ALERT_UPDATES}"],
    "EsperTrustRegionViolated": [f"> {h.EARLY_STOP_SHARE:g}", f">= {h.ALERT_UPDATES}"],
    "EsperRatioExplosion": [f"> {h.RATIO_MAX_CRITICAL:g}", f">= {h.ALERT_UPDATES}"],
    "EsperRatioCollapse": [f"<= {h.RATIO_MIN_CRITICAL:g}", f">= {h.ALERT_UPDATES}"],
    "EsperClipFractionHigh": [f"> {h.CLIP_FRACTION_CRITICAL:g}", f">= {h.ALERT_UPDATES}"],
    "EsperValueCollapse": [f"< {h.VALUE_SPREAD_COLLAPSED:g}", f">= {h.ALERT_UPDATES}"],
    "EsperValueUncorrelated": [
        f"<= {h.VALUE_CORRELATION_CRITICAL:g}",
        f">= {h.ALERT_UPDATES}",
        f">= {h.VALUE_WARM_UP_UPDATES}",
    ],
    "EsperRollbackStorm": [f">= {h.ROLLBACKS}", f"> {h.ROLLBACKS_PER_EPISODE:g}"],
    "EsperNoImprovement": [f">= {h.NO_IMPROVEMENT_BATCHES}"],
    "EsperPerformanceDegraded": [f"> {h.ACCURACY_DROP:g}"],
    "EsperEnvsDegraded": [f"> {h.ENVS_DEGRADED_SHARE:g}"],
    "EsperWaitDominates": [f">= {h.WAIT_SHARE_ACTIONS}", f"> {h.WAIT_SHARE_WARNING:g}"],
    "EsperGpuMemoryHigh": [f"> {h.MEMORY_CRITICAL:g}"],
    "EsperGpuMemoryFragmented": [f"> {h.FRAGMENTATION_WARNING:g}"],
    "EsperGpuHot": [f"> {h.GPU_HOT_CELSIUS}"],
    "EsperGpuThrottled": [f"> {h.GPU_THROTTLED_SHARE:g}"],
    "EsperGpuSilent": [f"> {h.GPU_SILENT_SECONDS}"],
    "EsperGpuIdle": [f"< {h.GPU_IDLE_SHARE:g}"],
    "EsperHostMemoryHigh": [f"> {h.MEMORY_CRITICAL:g}"],
    "EsperCgroupMemoryHigh": [f"> {h.MEMORY_CRITICAL:g}"],
    "EsperDiskFull": [f"< {h.DISK_FREE_SHARE:g}"],
    "EsperRankSilent": [f", {h.RANK_SILENT_SECONDS}", f"clamp_min({h.RANK_SILENT_STEPS} "],
    "EsperRankSlow": [f"{h.RANK_SLOW_FACTOR:g}"],
    "EsperScrapeSlow": [f"> {h.SCRAPE_SLOW_SECONDS:g}"],
    "EsperClockSkewed": [f"> {h.CLOCK_SKEW_SECONDS:g}"],
}


CONSTANTS = [f"{each:g}" for each in vars(h).values() if isinstance(each, int | float)]
"""What a rule without a line of its own above may compare with."""


@pytest.mark.parametrize("name", THRESHOLDS)
def test_thresholds_are_those_of_health(name: str) -> None:
    (rule,) = (rule for rule in ALERTING if rule["alert"] == name)
    for threshold in THRESHOLDS[name]:
        assert re.search(rf"{re.escape(threshold)}(?![\d.])", rule["expr"]), threshold


def test_a_share_or_a_level_in_a_rule_is_a_constant_of_health() -> None:
    for rule in ALERTING:
        written = set(re.findall(r"(?:[<>]=? |, )(-?\d+(?:\.\d+)?)\b", rule["expr"]))
        where = THRESHOLDS.get(rule["alert"], CONSTANTS)
        named = set(re.findall(r"-?\d+(?:\.\d+)?", " ".join(where)))
        # 0, 1 and 2 count things; a minute and more are times, of which the rules' own words tell.
        assert {
            number for number in written - named if not (float(number) <= 2 or float(number) >= 60)
        } == set(), rule["alert"]


def test_runbooks_name_metrics_that_there_are() -> None:
    names = {metric.name for metric in catalogue().metrics} | RECORDED
    for path in (ALERTS / "runbooks").glob("*.md"):
        for name in re.findall(r"\besper_[a-z0-9_]+[a-z0-9]\b(?!_)", path.read_text()):
            plain = re.sub(r"_(bucket|count|sum)$", "", name)
            assert {name, plain} & names, f"{path.name}: {name}"


def test_the_index_of_runbooks_says_what_each_begins_with() -> None:
    index = (ALERTS / "runbooks" / "README.md").read_text()
    for path in (ALERTS / "runbooks").glob("Esper*.md"):
        _, first, *_ = path.read_text().split("\n\n")
        assert f"| [{path.stem}]({path.stem}.md) | {' '.join(first.split())} |" in index


def test_every_alert_leads_to_a_dashboard_and_chooses_there_what_it_is_about() -> None:
    for rule in ALERTING:
        link = re.fullmatch(r"/d/(esper-[a-z]+)(?:\?(.*))?", rule["annotations"]["dashboard_url"])
        assert link, rule["alert"]
        chosen = re.findall(r"var-(\w+)=\{\{ \$labels\.(\w+)", link[2] or "")
        assert all(
            {"run_id": "run", "group_id": "group"}.get(label, label) == name
            for name, label in chosen
        )
        dashboard = ALERTS.parent / "grafana" / "dashboards" / f"{link[1]}.json"
        if dashboard.exists():
            described = json.loads(dashboard.read_text())
            assert described["uid"] == link[1]
            variables = {one["name"] for one in described["templating"]["list"]}
            assert {name for name, _ in chosen} <= variables, rule["alert"]


def test_what_is_not_a_fault_pages_no_one() -> None:
    for rule in ALERTING:
        assert "explained_variance" not in rule["expr"]
        assert "numerical_instability" not in rule["expr"]


def test_assets_are_written_with_the_addresses_of_dashboards_and_runbooks(tmp_path: Path) -> None:
    grafana, runbooks = "https://grafana.example.org/g", "https://git.example.org/esper/"
    done = run("assets", tmp_path, "--grafana-url", grafana, "--runbook-url", runbooks)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "alerts" / "rules").glob("*.yml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    operator = yaml.safe_load((tmp_path / "deploy/kubernetes/prometheusrule.yaml").read_text())
    assert operator["spec"]["groups"] == groups
    links = {
        rule["alert"]: rule["annotations"]
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    }
    for rule in ALERTING:
        reported = links[rule["alert"]]
        assert reported["dashboard_url"] == grafana + rule["annotations"]["dashboard_url"]
        assert reported["runbook_url"] == runbooks + rule["annotations"]["runbook_url"]
    promtool("check", "rules", *files)
