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
        for end in ("source_matchers", "target_matchers")
        for name in names(rule[end])
    }
    assert named <= {path.stem for path in (ALERTS / "runbooks").glob("*.md")}


RANK = {"job": "esper", "instance": "a:9108", "run_id": "r1", "group_id": "A", "rank": "0"}


def names(matchers: list[str]) -> list[str]:
    """The alerts that an inhibition's matchers name."""
    (matcher,) = (each for each in matchers if each.startswith("alertname"))
    return matcher.split('"')[1].split("|")


def test_what_follows_from_a_cause_is_not_told_beside_it_and_elsewhere_it_is(
    tmp_path: Path,
) -> None:
    causes, followers, others = [], [], []
    for number, rule in enumerate(shipped()["inhibit_rules"]):
        # Only an exporter has no run.
        exporter = names(rule["target_matchers"]) == ["EsperExporterDown"]
        assert rule["equal"] == (["job", "instance"] if exporter else list(RANK))
        about = RANK | {"instance": f"{number}:9108", "severity": "warning", "source": "loss"}
        causes += [{**about, "alertname": names(rule["source_matchers"])[0]}]
        for name in names(rule["target_matchers"]):
            follower = {**about, "alertname": name}
            followers.append(follower)
            others += [{**follower, label: "another"} for label in rule["equal"]]
    with alertmanager(tmp_path) as server:
        server.post(causes)
        wait_until(
            lambda: all(
                server.told("team", **cause) or server.told("nobody", **cause) for cause in causes
            ),
            "the causes have arrived",
        )
        server.post(followers + others)
        wait_until(
            lambda: all(server.told("team", **other) for other in others),
            "what differs in one label is told",
        )
        # Others are in the groups of the followers, which would have come with them.
        assert [follower for follower in followers if server.told("team", **follower)] == []
