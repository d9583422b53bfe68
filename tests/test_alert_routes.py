"""Who is told of what: the shipped routes, inhibition and message templates, by Alertmanager."""

from __future__ import annotations

import subprocess
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
        ("alertname=Unlabelled", "team"),
    ],
)
def test_routes(labels: str, receiver: str, tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(shipped()))
    told = amtool("config", "routes", "test", f"--config.file={path}", *labels.split())
    assert told.split() == [receiver]


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
    followers = [
        name
        for rule in shipped()["inhibit_rules"][:1]
        for name in rule["target_matchers"][0].split('"')[1].split("|")
    ]
    with alertmanager(tmp_path) as server:
        server.post([latch])
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
