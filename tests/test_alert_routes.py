"""Alertmanager with the shipped routes: receivers, inhibition and message templates."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
        ("alertname=EsperRunDied severity=critical latched=true", "on-call-latched"),
        ("alertname=EsperGradientExplosion severity=warning", "team"),
        ("alertname=Foreign severity=warning latched=true", "team"),
        ("alertname=EsperWatchdog severity=none", "dead-mans-switch"),
        ("alertname=EsperNonFiniteLately severity=none", "nobody"),
        ("alertname=EsperNonFiniteLatched severity=critical latched=true", "on-call-latched"),
        ("alertname=EsperNonFiniteLatched severity=critical latched=true follows=head", "nobody"),
        ("alertname=EsperGpuXid severity=critical", "on-call"),
        ("alertname=EsperAgentDown severity=critical instance=n:9109", "on-call"),
        ("alertname=EsperRankSilent severity=critical run_id=r rank=3", "on-call"),
        ("alertname=Unlabelled", "team"),
    ],
)
def test_routes(labels: str, receiver: str, tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(shipped()))
    reported = amtool("config", "routes", "test", f"--config.file={path}", *labels.split())
    assert reported.split() == [receiver]


ROUTES = [
    # Labels, receiver, grouped by, group_wait, group_interval, repeat_interval: written by hand.
    (
        {"alertname": "EsperWatchdog", "severity": "none"},
        ("dead-mans-switch", ["..."], "0s", "1m", "1m"),
    ),
    (
        {
            "alertname": "EsperHeadNonFiniteLatched",
            "severity": "critical",
            "latched": "true",
            "run_id": "r",
        },
        ("on-call-latched", ["cluster", "run_id", "group_id"], "1s", "5m", "12h"),
    ),
    (
        {"alertname": "EsperRunFailed", "severity": "critical", "latched": "true", "run_id": "r"},
        ("on-call-latched", ["cluster", "run_id", "group_id"], "15s", "5m", "12h"),
    ),
    (
        {"alertname": "EsperRunDied", "severity": "critical", "latched": "true", "run_id": "r"},
        ("on-call-latched", ["cluster", "run_id", "group_id"], "15s", "5m", "12h"),
    ),
    (
        {"alertname": "EsperGpuXid", "severity": "critical"},
        ("on-call", ["alertname", "cluster", "instance"], "10s", "5m", "12h"),
    ),
    (
        {"alertname": "EsperAgentDown", "severity": "critical", "instance": "n:9109"},
        ("on-call", ["alertname", "cluster", "instance"], "10s", "5m", "12h"),
    ),
    (
        {"alertname": "EsperNonFiniteLately", "severity": "none", "run_id": "r"},
        ("nobody", ["alertname", "cluster", "run_id", "group_id"], "90s", "5m", "12h"),
    ),
    (
        {"alertname": "EsperGradientExplosion", "severity": "warning", "run_id": "r"},
        ("team", ["alertname", "cluster", "run_id", "group_id"], "90s", "5m", "12h"),
    ),
    (
        {"alertname": "EsperExporterDown", "severity": "warning"},
        ("team", ["alertname", "cluster", "job"], "90s", "5m", "12h"),
    ),
]


@pytest.mark.parametrize(("labels", "expected"), ROUTES, ids=lambda each: str(each)[:40])
def test_who_receives_what_grouped_how_and_when(
    labels: dict[str, str], expected: tuple[Any, ...], tmp_path: Path
) -> None:
    config = shipped()
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    pairs = [f"{name}={value}" for name, value in labels.items()]
    assert amtool("config", "routes", "test", f"--config.file={path}", *pairs).split() == [
        expected[0]
    ]
    root = config["route"]
    chosen = {**root, **next((r for r in root["routes"] if matches(r["matchers"], labels)), {})}
    names = ("receiver", "group_by", "group_wait", "group_interval", "repeat_interval")
    assert tuple(chosen[name] for name in names) == expected


def matches(matchers: list[str], labels: dict[str, str]) -> bool:
    """Whether all matchers of a route or an inhibition hold."""
    for matcher in matchers:
        name, operator, value = re.fullmatch(r'(\w+)(=~|=)"(.*)"', matcher).groups()  # type: ignore[union-attr]
        pattern = value if operator == "=~" else re.escape(value)
        if not re.fullmatch(pattern, labels.get(name, "")):
            return False
    return True


RUN = {"cluster": "north", "run_id": "r1", "group_id": "A"}
CONSEQUENCES = (
    "EsperGradientExplosion",
    "EsperGradientSpike",
    "EsperNonFiniteGradient",
    "EsperUpdatesSkipped",
    "EsperHeadEntropyCollapse",
    "EsperLogProbUnderflow",
)
SILENCED: list[tuple[dict[str, str], dict[str, str]]] = [
    # Cause, follower; all of one run of one cluster, of different ranks on different addresses.
    *(({"alertname": "EsperNonFiniteLately"}, {"alertname": name}) for name in CONSEQUENCES),
    *(
        (
            {"alertname": "EsperHeadNonFiniteLatched"},
            {"alertname": "EsperNonFiniteLatched", "source": source},
        )
        for source in ("log_probs", "ref_log_probs", "ratio", "loss")
    ),
    (
        {"alertname": "EsperHeadNonFiniteLatched"},
        {"alertname": "EsperRunFailed", "reason": "nonfinite"},
    ),
    (
        {"alertname": "EsperNonFiniteLatched"},
        {"alertname": "EsperRunFailed", "reason": "nonfinite"},
    ),
    ({"alertname": "EsperRunFailed"}, {"alertname": "EsperRunDied"}),
    ({"alertname": "EsperRunFailed"}, {"alertname": "EsperRunStalled"}),
    ({"alertname": "EsperRunDied"}, {"alertname": "EsperRunStalled"}),
    ({"alertname": "EsperTelemetryStale"}, {"alertname": "EsperRunStalled"}),
    ({"alertname": "EsperRunFailed"}, {"alertname": "EsperTelemetryStale"}),
    ({"alertname": "EsperRunDied"}, {"alertname": "EsperTelemetryStale"}),
    ({"alertname": "EsperRunFailed"}, {"alertname": "EsperRankSilent"}),
    ({"alertname": "EsperRunDied"}, {"alertname": "EsperRankSilent"}),
    ({"alertname": "EsperRankSilent"}, {"alertname": "EsperTelemetryStale"}),
    ({"alertname": "EsperRankSilent"}, {"alertname": "EsperRunStalled"}),
    ({"alertname": "EsperRankSilent"}, {"alertname": "EsperRankSlow"}),
    ({"alertname": "EsperGradientExplosion"}, {"alertname": "EsperGradientSpike"}),
    ({"alertname": "EsperAgentDown"}, {"alertname": "EsperExporterDown"}),
    ({"alertname": "EsperRunDied"}, {"alertname": "EsperExporterDown"}),
    ({"alertname": "EsperRunFailed"}, {"alertname": "EsperExporterDown"}),
]
HEARD: list[tuple[dict[str, str], dict[str, str]]] = [
    # What is a fault beside the other.
    (
        {"alertname": "EsperHeadNonFiniteLatched"},
        {"alertname": "EsperNonFiniteLatched", "source": "gradients"},
    ),
    (
        {"alertname": "EsperHeadNonFiniteLatched"},
        {"alertname": "EsperNonFiniteLatched", "source": "values"},
    ),
    ({"alertname": "EsperHeadNonFiniteLatched"}, {"alertname": "EsperRunFailed", "reason": "oom"}),
    ({"alertname": "EsperHeadNonFiniteLatched"}, {"alertname": "EsperUpdatesSkipped"}),
    ({"alertname": "EsperNonFiniteLately"}, {"alertname": "EsperRunFailed", "reason": "nonfinite"}),
    ({"alertname": "EsperNonFiniteLately"}, {"alertname": "EsperKlDivergenceHigh"}),
    ({"alertname": "EsperNonFiniteLatched"}, {"alertname": "EsperHeadNonFiniteLatched"}),
    ({"alertname": "EsperRunStalled"}, {"alertname": "EsperTelemetryStale"}),
    ({"alertname": "EsperTelemetryStale"}, {"alertname": "EsperExporterDown"}),
    ({"alertname": "EsperRunDied"}, {"alertname": "EsperRunFailed", "reason": "oom"}),
    ({"alertname": "EsperRunFailed"}, {"alertname": "EsperGpuXid"}),
    ({"alertname": "EsperRankSilent"}, {"alertname": "EsperRanksDisagree"}),
    ({"alertname": "EsperTelemetryStale"}, {"alertname": "EsperRankSilent"}),
    ({"alertname": "EsperRankSilent"}, {"alertname": "EsperExporterDown"}),
    ({"alertname": "EsperExporterDown"}, {"alertname": "EsperAgentDown"}),
    ({"alertname": "EsperAgentDown"}, {"alertname": "EsperGpuXid"}),
]


def test_what_follows_from_a_cause_is_not_sent_beside_it_and_all_else_is(tmp_path: Path) -> None:
    """The tables above are written by hand; a real Alertmanager has to agree."""
    causes, quiet, loud = [], [], []

    def pair(number: int, cause: dict[str, str], follower: dict[str, str]) -> tuple[Any, Any]:
        exporter = follower["alertname"] == "EsperExporterDown"
        process = {"job": "esper", "instance": f"{number}:9108"}
        about = {**RUN, "run_id": f"r{number}", "severity": "warning"}
        one = {**about, **process, "rank": "0", **cause}
        other = {**about, **process, "rank": "1", **follower}
        if not exporter:
            other["instance"] = f"{number}:9109"
        else:
            other = {key: value for key, value in other.items() if key not in (*RUN, "rank")}
            other |= {"cluster": "north"}
        return one, other

    number = 0
    for cause, follower in SILENCED:
        one, other = pair(number := number + 1, cause, follower)
        causes.append(one)
        quiet.append(other)
        exporter = follower["alertname"] == "EsperExporterDown"
        for label in ("cluster", "job", "instance") if exporter else tuple(RUN):
            loud.append({**other, label: f"another-{number}"})
    for cause, follower in HEARD:
        one, other = pair(number := number + 1, cause, follower)
        causes.append(one)
        loud.append(other)

    # Long enough that all of a group arrive before its first notification.
    with alertmanager(tmp_path, group_wait="5s") as server:
        receivers = ("team", "on-call", "on-call-latched", "nobody")

        def arrived(labels: dict[str, str]) -> bool:
            return any(server.notified(receiver, **labels) for receiver in receivers)

        server.post(causes)
        wait_until(lambda: all(map(server.knows, causes)), "the causes have arrived")
        server.post(quiet + loud)
        wait_until(
            lambda: all(map(arrived, loud)), "what is a fault beside the other is sent", 60.0, 0.2
        )
        assert [labels for labels in quiet if arrived(labels)] == []


def test_inhibition_names_alerts_that_there_are() -> None:
    named = {
        name
        for rule in shipped()["inhibit_rules"]
        for end in ("source_matchers", "target_matchers")
        for matcher in rule[end]
        if matcher.startswith("alertname")
        for name in matcher.split('"')[1].split("|")
    }
    assert named <= {path.stem for path in (ALERTS / "runbooks").glob("*.md")}


def rendered(
    template: str,
    tmp_path: Path,
    links: str = "",
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    beside: Sequence[Mapping[str, Any]] = (),
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
        "labels": {
            "alertname": "EsperHeadNonFiniteLatched",
            "cluster": "north",
            "instance": "a:9108",
            "run_id": "r1",
            "group_id": "A",
            "rank": "3",
            "head": "op",
            "kind": "nan",
            **(labels or {}),
        },
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
    data.write_text(json.dumps({"status": "firing", "alerts": [*beside, alert]}))
    return amtool(
        *("template", "render", f"--template.glob={folder}/*.tmpl", f"--template.data={data}"),
        f'--template.text={{{{ template "{template}" . }}}}',
    )


def test_a_message_says_what_since_when_and_where_to_look(tmp_path: Path) -> None:
    assert rendered("esper.title", tmp_path / "title").strip() == (
        "[FIRING] EsperHeadNonFiniteLatched: head op nan, run r1/A, cluster north"
    )
    assert rendered("esper.text", tmp_path / "text").splitlines()[:9] == [
        "Run r1: head op produced nan",
        "The nan latch was lit.",
        "Where: cluster north a:9108 rank 3",
        "Since 2026-01-02 03:04:05 UTC.",
        # From half an hour before the fault to ten minutes after it.
        "Dashboard: http://127.0.0.1:3000/d/esper-heads?var-run=r1&var-head=op"
        "&from=1767321245000&to=1767323645000",
        "Page: http://a:9108/",
        "Runbook: http://a:9108/page/alerts/runbooks/EsperHeadNonFiniteLatched.md",
        "First cause: esper-exporter explain --prometheus http://127.0.0.1:9090 --run-id 'r1'",
        "",
    ]


def test_the_cause_leads_in_title_and_text(tmp_path: Path) -> None:
    failed = {
        "status": "firing",
        "labels": {"alertname": "EsperRunFailed", "run_id": "r1", "reason": "oom"},
        "annotations": {
            "summary": "Run r1 has failed: oom",
            "description": "It ended.",
            "context": "On 8 ranks.",
            "runbook_url": "alerts/runbooks/EsperRunFailed.md",
            "dashboard_url": "/d/esper-fleet",
        },
        "startsAt": "2026-01-02T05:04:05+02:00",
    }
    title = rendered("esper.title", tmp_path / "title", beside=[failed]).strip()
    assert title.startswith("[FIRING: 2 alerts] EsperHeadNonFiniteLatched: head op nan, run r1")
    text = rendered("esper.text", tmp_path / "text", beside=[failed])
    assert text.index("head op produced nan") < text.index("Run r1 has failed: oom")
    assert "It ended.\nOn 8 ranks.\nWhere:\nSince 2026-01-02 03:04:05 UTC.\n" in text
    assert "Dashboard: http://127.0.0.1:3000/d/esper-fleet?from=1767321245000" in text


TITLES = [
    # Labels of an alert, and the title of its message: written by hand.
    (
        {"alertname": "EsperNonFiniteLatched", "run_id": "r1", "source": "values"},
        "[FIRING] EsperNonFiniteLatched: values, run r1",
    ),
    (
        {"alertname": "EsperRunFailed", "run_id": "r1", "group_id": "default", "reason": "oom"},
        "[FIRING] EsperRunFailed: oom, run r1",
    ),
    (
        {"alertname": "EsperGpuXid", "cluster": "north", "gpu": "2", "xid": "79"},
        "[FIRING] EsperGpuXid: XID 79, GPU 2, cluster north",
    ),
]


def test_a_title_names_the_source_the_reason_and_the_gpu(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("cluster", "run_id", "group_id", "head", "kind"), "")
    for number, (labels, title) in enumerate(TITLES):
        shown = rendered("esper.title", tmp_path / str(number), labels={**nothing, **labels})
        assert shown.strip() == title


def test_a_source_leads_as_a_head_does(tmp_path: Path) -> None:
    failed = {"labels": {"alertname": "EsperRunFailed"}, "startsAt": "2026-01-02T03:04:05Z"}
    labels = {"head": "", "kind": "", "alertname": "EsperNonFiniteLatched", "source": "values"}
    beside = [{"status": "firing", "annotations": {"summary": "It failed."}, **failed}]
    title = rendered("esper.title", tmp_path / "title", labels=labels, beside=beside).strip()
    assert title.startswith("[FIRING: 2 alerts] EsperNonFiniteLatched: values")
    text = rendered("esper.text", tmp_path / "text", labels=labels, beside=beside)
    assert text.index("head op produced nan") < text.index("It failed.")


def test_a_machine_has_no_run_s_page_and_a_runbook_s_address_stays(tmp_path: Path) -> None:
    link = "https://git.example/alerts/runbooks/EsperGpuXid.md"
    text = rendered(
        "esper.text", tmp_path, labels={"run_id": ""}, annotations={"runbook_url": link}
    )
    assert "Page:" not in text
    assert f"Runbook: {link}\n" in text


def test_two_lines_say_where_links_lead(tmp_path: Path) -> None:
    text = rendered("esper.text", tmp_path, links="https://a.example/x")
    assert "https://a.example/x/d/esper-heads?var-run=r1&var-head=op&from=" in text
    assert "https://a.example/x/alerts/runbooks/EsperHeadNonFiniteLatched.md\n" in text


def test_a_link_that_is_an_address_already_stays(tmp_path: Path) -> None:
    link = "https://g.example/d/esper-heads"
    text = rendered("esper.text", tmp_path, annotations={"dashboard_url": link})
    assert f"Dashboard: {link}?from=" in text


def test_how_each_receiver_is_reached_is_written_by_hand() -> None:
    """What cannot wait until morning pages; what ends by no recovery does not report its end."""
    example = yaml.safe_load((ALERTS / "receivers.example.yml").read_text())["receivers"]
    reached = {
        receiver["name"]: {
            kind.removesuffix("_configs"): [each["send_resolved"] for each in configs]
            for kind, configs in receiver.items()
            if kind != "name"
        }
        for receiver in example
    }
    assert reached == {
        "team": {"email": [True]},
        "on-call": {"pagerduty": [True]},
        "on-call-latched": {"pagerduty": [False], "slack": [False]},
        "dead-mans-switch": {"webhook": [False]},
        "nobody": {},
    }
    for receiver in example:
        for kind, configs in receiver.items():
            if kind in ("pagerduty_configs", "slack_configs", "email_configs"):
                told = yaml.safe_dump(configs)
                assert '{{ template "esper.title" . }}' in told, receiver["name"]
                assert '{{ template "esper.text" . }}' in told, receiver["name"]
                assert "_file: /etc/alertmanager/secrets/" in told, receiver["name"]
