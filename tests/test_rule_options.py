"""Rules, routes and dashboards as ``assets`` writes them for a view of several clusters."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from esper_exporter.rule_options import RuleOptions
from support.command import run
from support.programs import program

SELECTOR = 'env="prod",team=~"a|b"'


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    done = run("assets", folder, "--cluster-label", "site", "--selector", SELECTOR)
    assert done.returncode == 0, done.stderr
    return folder


def rules(folder: Path) -> list[dict[str, Any]]:
    return [
        rule
        for path in sorted((folder / "alerts" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def test_servers_accept_what_was_written(written: Path) -> None:
    for tool, check, paths in (
        ("promtool", ("check", "rules"), sorted((written / "alerts" / "rules").glob("*.yml"))),
        ("amtool", ("check-config",), [written / "alerts" / "alertmanager.yml"]),
    ):
        done = subprocess.run(
            [program(tool), *check, *map(str, paths)], capture_output=True, text=True, check=False
        )
        # The templates lie where Alertmanager's container has them.
        assert done.returncode == 0 or "templates" in done.stdout + done.stderr, done.stdout


def test_the_operators_manifest_has_the_same_rules(written: Path) -> None:
    manifest = yaml.safe_load((written / "deploy/kubernetes/prometheusrule.yaml").read_text())
    there = [rule for group in manifest["spec"]["groups"] for rule in group["rules"]]
    assert there == rules(written)


def test_every_series_is_selected_and_what_was_recorded_of_it_is_not(written: Path) -> None:
    by_name = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules(written)}
    assert by_name["EsperGpuHot"] == (
        f"avg_over_time(esper_gpu_temperature_celsius{{{SELECTOR}}}[5m]) > 85"
    )
    assert f'xid_errors_total{{{SELECTOR},xid!~"43|45"}}[15m]' in by_name["EsperGpuXid"]
    assert by_name["EsperWatchdog"] == f"group by (site) (up{{{SELECTOR}}}) or on () vector(1)"
    recorded = 'rank:esper_run_failed_timestamp_seconds:latched{reason!="nonfinite"} > 0'
    assert recorded in by_name["EsperRunFailed"]
    assert by_name["cluster:esper_series:sum"].startswith("sum by (site) (esper_exporter_series{")


def test_no_place_keeps_the_shipped_label(written: Path) -> None:
    assert not [rule for rule in rules(written) if "cluster," in rule["expr"]]
    assert not [rule for rule in rules(written) if "(cluster)" in rule["expr"]]
    routes = yaml.safe_load((written / "alerts" / "alertmanager.yml").read_text())
    assert routes["route"]["group_by"] == ["alertname", "site", "run_id", "group_id"]
    assert all(
        "site" in rule["equal"] and "cluster" not in rule["equal"]
        for rule in routes["inhibit_rules"]
    )
    assert ".Labels.cluster" not in (written / "alerts/templates/esper.tmpl").read_text()
    for path in (written / "grafana" / "dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                assert 'cluster=~"' not in target["expr"] and "(cluster" not in target["expr"]


@pytest.mark.parametrize(
    ("label", "selector"), [("no label", ""), ("", ""), ("a", "env=prod"), ("a", '{env="x"}')]
)
def test_what_no_server_would_take_is_refused(label: str, selector: str) -> None:
    with pytest.raises(ValueError, match=r"--cluster-label|--selector"):
        RuleOptions(label, selector)


@pytest.mark.parametrize(("selector", "fires"), [('replica="a"', 1), ("", 0)])
def test_two_replicas_in_one_store_need_a_selector(
    selector: str, fires: int, tmp_path: Path
) -> None:
    """A store with both replicas of each series makes a division many-to-many: alerts/README.md
    advises to deduplicate before rules read it, or to read one replica."""
    done = run("assets", tmp_path, *(("--selector", selector) if selector else ()))
    assert done.returncode == 0, done.stderr
    run_labels = 'job="esper",instance="a:9108",run_id="r1",group_id="A",rank="0"'
    series = [
        {"series": f'{name}{{{run_labels},replica="{replica}"}}', "values": values}
        for replica in "ab"
        for name, values in (
            ("esper_tamiyo_gradient_explosions_total", "0x10 0+1x30"),
            ("esper_tamiyo_updates_total", "0+2x40"),
        )
    ]
    told = {
        "expr": 'count(ALERTS{alertname="EsperGradientExplosion"})',
        "eval_time": "30m",
        "exp_samples": [{"labels": "{}", "value": fires}] if fires else [],
    }
    unit = tmp_path / "replicas.yml"
    unit.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(tmp_path / "alerts" / "rules" / "gradients.yml")],
                "evaluation_interval": "1m",
                "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [told]}],
            }
        )
    )
    tested = subprocess.run(
        [program("promtool"), "test", "rules", unit], capture_output=True, text=True, check=False
    )
    reported = tested.stdout + tested.stderr
    if selector:
        assert tested.returncode == 0, reported
    else:
        assert "many-to-many" in reported or "duplicate series" in reported
