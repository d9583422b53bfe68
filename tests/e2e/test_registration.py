"""A real Prometheus, with the configuration that is shipped, finds a process that starts."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from support.command import environment
from support.ports import free_port
from support.programs import end, program, wait_until
from support.prometheus import Prometheus

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / "tests" / "support" / "trainer.py"
WAITS = (sys.executable, str(TRAINER), "healthy-wait")
DEMO = (
    *(sys.executable, "-m", "esper_exporter", "demo", "--port", "0"),
    *("--envs", "1", "--epochs", "6"),
)
"""What the stack runs; without scikit-learn, which the tests have on one Python only, `WAITS`."""


def test_the_shipped_configuration_finds_a_trainer_that_starts_and_sees_it_go(
    tmp_path: Path,
) -> None:
    targets = tmp_path / "targets"
    targets.mkdir()
    shipped = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    config = yaml.safe_load(
        shipped.replace("/etc/prometheus/rules", str(ROOT / "alerts" / "rules"))
        .replace("/etc/prometheus/targets", str(targets))
        .replace("15s", "1s")
        .replace("alertmanager:9093", f"127.0.0.1:{free_port()}")
    )
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    variables = environment(
        PYTHONPATH=os.pathsep.join([str(ROOT / "exporter"), str(ROOT / "tests")]),
        ESPER_EXPORTER_FILE_SD=str(targets),
        ESPER_EXPORTER_LINGER="0",
    )
    server = Prometheus(port, process, log)
    trainer = None
    try:
        wait_until(server.is_ready, "Prometheus answers", 30.0, every=0.1)
        trainer = subprocess.Popen(
            DEMO if importlib.util.find_spec("sklearn") else WAITS,
            env=variables | {"ESPER_EXPORTER_RUN_ID": "night-7"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        server.wait_for('up{job="esper"}', 1.0)
        server.wait_for('count(esper_run_info{run_id="night-7",host!=""})', 1.0)
        wait_until(
            lambda: (
                [
                    target["discoveredLabels"].get("__meta_esper_run_id")
                    for target in server.targets()
                    if target["labels"]["job"] == "esper"
                ]
                == ["night-7"]
            ),
            "the target carries its run",
        )
        assert server.query('{exported_run_id!=""}') == {}
        server.wait_for("cluster:esper_runs:count", 1.0)
        files = {group["file"] for group in server.api("rules")["groups"]}
        assert files == {str(path) for path in (ROOT / "alerts" / "rules").glob("*.yml")}
        wait_until(
            lambda: (
                {
                    rule["health"]
                    for group in server.api("rules")["groups"]
                    for rule in group["rules"]
                }
                == {"ok"}
            ),
            "every rule is evaluated",
        )
        end(trainer)
        assert trainer.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
        wait_until(lambda: not list(targets.iterdir()), "its target file is gone")
        wait_until(
            lambda: all(target["labels"]["job"] != "esper" for target in server.targets()),
            "Prometheus sees it go",
        )
        server.wait_for('count(up{job="esper"}) or vector(0)', 0.0)
        # One that is killed has no chance to say goodbye; the next one to start says it.
        killed = subprocess.Popen(
            WAITS,
            env=variables,
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: list(targets.glob("*.json")), "it registers")
        killed.kill()
        killed.wait()
        (left,) = targets.iterdir()
        trainer = subprocess.Popen(
            WAITS,
            env=variables,
            stdout=subprocess.DEVNULL,
        )
        wait_until(
            lambda: not left.exists() and len(list(targets.iterdir())) == 1, "the next tidies up"
        )
    finally:
        if trainer is not None:
            end(trainer)
        end(process)
