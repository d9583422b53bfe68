"""Who is told of what: the shipped routes, inhibition and message templates, by Alertmanager."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from support.alertmanager import ALERTS, alertmanager, shipped
from support.programs import program, wait_until


def amtool(*arguments: object) -> str:
    done = subprocess.run(
        [program("amtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("receivers", ["shipped", "example"])
def test_amtool_finds_nothing_wrong(receivers: str, tmp_path: Path) -> None:
    config = shipped()
    if receivers == "example":
        example = yaml.safe_load((ALERTS / "receivers.example.yml").read_text())["receivers"]
        assert [one["name"] for one in example] == [one["name"] for one in config["receivers"]]
        config["receivers"] = example
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    assert "1 templates" in amtool("check-config", path)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=EsperHeadNonFiniteLatched severity=critical latched=true", "on-call-latched"),
        ("alertname=EsperRunFailed severity=critical latched=true", "on-call-latched"),
        ("alertname=EsperRunDied severity=critical", "on-call"),
        ("alertname=EsperGradientExplosion severity=warning", "team"),
        ("alertname=Foreign severity=warning latched=true", "team"),
        ("alertname=EsperWatchdog severity=none", "dead-mans-switch"),
        ("alertname=EsperNonFiniteLately severity=none", "nobody"),
        ("alertname=EsperGpuXid severity=critical", "on-call"),
        ("alertname=Unlabelled", "team"),
    ],
)
def test_routes(labels: str, receiver: str, tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(shipped()))
    told = amtool("config", "routes", "test", f"--config.file={path}", *labels.split())
    assert told.split() == [receiver]


def rendered(
    template: str, tmp_path: Path, links: str = "", annotations: Mapping[str, str] | None = None
) -> str:
    """A template's text for one alert; ``links`` takes the place of what links.tmpl ships."""
    folder = tmp_path / "templates"
    shutil.copytree(ALERTS / "templates", folder)
    if links:
        text = (folder / "links.tmpl").read_text()
        (folder / "links.tmpl").write_text(
            re.sub(
                r'(define "[^"]+" \}\}).*(\{\{ end \}\})$',
                rf"\1{links}\2",
                text,
                count=2,
                flags=re.M,
            )
        )
    alert = {
        "status": "firing",
        "labels": {"alertname": "EsperHeadNonFiniteLatched", "run_id": "r1"},
        "annotations": {
            "summary": "Run r1: head op produced nan",
            "description": "The nan latch was lit.",
            "runbook_url": "alerts/runbooks/EsperHeadNonFiniteLatched.md",
            "dashboard_url": "/d/esper-heads?var-run=r1&var-head=op",
            **(annotations or {}),
        },
        "startsAt": "2026-01-02T03:04:05Z",
    }
    data = tmp_path / "data.json"
    data.write_text(
        json.dumps({"status": "firing", "alerts": [alert], "commonLabels": alert["labels"]})
    )
    return amtool(
        *("template", "render", f"--template.glob={folder}/*.tmpl", f"--template.data={data}"),
        f'--template.text={{{{ template "{template}" . }}}}',
    )


def test_a_message_says_what_since_when_and_where_to_look(tmp_path: Path) -> None:
    assert rendered("esper.title", tmp_path / "title").strip() == (
        "[FIRING] EsperHeadNonFiniteLatched: run r1"
    )
    assert rendered("esper.text", tmp_path / "text").splitlines()[:5] == [
        "Run r1: head op produced nan",
        "The nan latch was lit.",
        "Since 2026-01-02 03:04:05 UTC.",
        "Dashboard: http://127.0.0.1:3000/d/esper-heads?var-run=r1&var-head=op",
        "Runbook: /alerts/runbooks/EsperHeadNonFiniteLatched.md",
    ]


def test_two_lines_say_where_links_lead(tmp_path: Path) -> None:
    text = rendered("esper.text", tmp_path, links="https://a.example/x")
    assert "https://a.example/x/d/esper-heads?var-run=r1&var-head=op\n" in text
    assert "https://a.example/x/alerts/runbooks/EsperHeadNonFiniteLatched.md\n" in text


def test_a_link_that_is_an_address_already_stays(tmp_path: Path) -> None:
    link = "https://g.example/d/esper-heads"
    text = rendered("esper.text", tmp_path, annotations={"dashboard_url": link})
    assert f"Dashboard: {link}\n" in text


def test_the_end_of_a_latch_is_told_to_nobody() -> None:
    example = yaml.safe_load((ALERTS / "receivers.example.yml").read_text())["receivers"]
    (latched,) = (one for one in example if one["name"] == "on-call-latched")
    assert latched.pop("name")
    assert [each["send_resolved"] for kind in latched.values() for each in kind] == [False]


def test_inhibition_names_alerts_that_there_are() -> None:
    named = {
        name
        for rule in shipped()["inhibit_rules"]
        for matcher in rule["source_matchers"] + rule["target_matchers"]
        if matcher.startswith("alertname")
        for name in matcher.split('"')[1].split("|")
    }
    assert named <= {path.stem for path in (ALERTS / "runbooks").glob("*.md")}


def test_what_a_nan_brings_with_it_is_not_told_beside_it_in_the_same_rank_only(
    tmp_path: Path,
) -> None:
    def labels(alert: str, severity: str, run: str, rank: str = "0") -> dict[str, str]:
        about = {"job": "esper", "instance": "a:9108", "group_id": "A"}
        return {"alertname": alert, "severity": severity, "run_id": run, "rank": rank, **about}

    latch = {**labels("EsperHeadNonFiniteLatched", "critical", "r1"), "latched": "true"}
    lately = labels("EsperNonFiniteLately", "none", "r1")
    followers = [
        name
        for rule in shipped()["inhibit_rules"][:1]
        for name in rule["target_matchers"][0].split('"')[1].split("|")
    ]
    with alertmanager(tmp_path) as server:
        server.post([latch, lately])
        wait_until(lambda: server.told("on-call-latched", run_id="r1"), "the latch is told")
        server.post(
            [
                labels(name, "warning", run, rank)
                for name in followers
                for run, rank in (("r1", "0"), ("r1", "1"), ("r2", "0"))
            ]
        )
        others = [
            {"alertname": name, "run_id": run, "rank": rank}
            for name in followers
            for run, rank in (("r1", "1"), ("r2", "0"))
        ]
        wait_until(
            lambda: all(server.told("team", **other) for other in others),
            "the other run and the other rank are told",
        )
        # Rank 1 of the same run is in the same group, so rank 0 would have come with it.
        assert not server.told("team", run_id="r1", rank="0")
