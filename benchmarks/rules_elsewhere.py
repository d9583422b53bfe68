"""Whether the rules mean the same to other servers: other promtools, and VictoriaMetrics' vmalert.

    python -m benchmarks.rules_elsewhere [--promtool PATH …] [--seconds S]

Each promtool, that of the PATH by default, checks the rules and runs the tests of alerts/tests.
Then trainings latch a NaN and die of an exception, ``os._exit`` and SIGKILL behind a node agent, or
go on, and one without an agent vanishes. A real Prometheus scrapes them and evaluates the shipped
rules; VictoriaMetrics scrapes the same addresses, and vmalert evaluates the rules there. After S
seconds both have to have the same alerts firing, with the same labels; a rule that vmalert cannot
evaluate is printed. Exits 1 where something differs. Needs Prometheus, and for the second part
Debian's victoria-metrics; without it that part is named as not run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from benchmarks.crashes import TRAINER, agent
from support.command import environment
from support.ports import free_port
from support.programs import end, wait_until
from support.prometheus import prometheus

ALERTS = Path(__file__).parents[1] / "alerts"
RULES = sorted((ALERTS / "rules").glob("*.yml"))
TESTS = sorted((ALERTS / "tests").glob("*.yml"))
INTERVAL = "5s"
WAYS = {
    "raises": ["nan", "op", "raise"],
    "exits": ["nan", "op", "exit", "3"],
    "killed": ["nan", "op", "sigkill"],
    "only-killed": ["sigkill"],
    "goes-on": ["pause"],
    "latched-goes-on": ["nan", "tempo", "pause"],
}
EXPECTED = {
    ("EsperHeadNonFiniteLatched", "raises"),
    ("EsperHeadNonFiniteLatched", "exits"),
    ("EsperHeadNonFiniteLatched", "killed"),
    ("EsperHeadNonFiniteLatched", "latched-goes-on"),
    ("EsperRunFailed", "exits"),
    ("EsperRunFailed", "killed"),
    ("EsperRunFailed", "only-killed"),
    ("EsperRunDied", "vanishes"),
}
"""What both have to fire, whatever else: alert and run."""
ALONE = """
import sys, time
sys.path.insert(0, sys.argv[2])
from esper_exporter import Exporter
from trainer import STARTED
exporter = Exporter(run_id="vanishes", port=int(sys.argv[1]), state_dir="off", gpu_vitals="off")
exporter.start()
exporter.emit({"event_type": "TRAINING_STARTED", "timestamp": time.time(), "data": STARTED})
time.sleep(3600)
"""

Alert = tuple[tuple[str, str], ...]


def tested(promtool: str) -> bool:
    """Whether a promtool finds nothing wrong and passes every test; prints what it is."""
    version = subprocess.run([promtool, "--version"], capture_output=True, text=True, check=True)
    name = (version.stdout or version.stderr).split("(")[0].strip()
    failed = [
        path.name
        for path, command in [
            *((path, ["check", "rules", "--lint-fatal", path]) for path in RULES),
            *((path, ["test", "rules", path]) for path in TESTS),
        ]
        if subprocess.run([promtool, *command], capture_output=True, check=False).returncode
    ]
    print(f"{name}: {len(RULES)} files of rules, {len(TESTS)} of tests; failed: {failed or 'none'}")
    return not failed


@contextmanager
def started(command: Sequence[object], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server until the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        end(process)


@contextmanager
def training(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that is killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def answer(address: str, path: str) -> Any:
    """What a server's API answers."""
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as page:
        return json.load(page)


def firing(alerts: Sequence[dict[str, Any]]) -> set[Alert]:
    """The labels of alerts that fire, without those that a server adds of its rules."""
    added = {"alertgroup"}
    return {
        tuple(sorted((k, v) for k, v in alert["labels"].items() if k not in added))
        for alert in alerts
        if alert["state"] == "firing"
    }


def trial(seconds: float) -> bool:
    """Both servers beside the same trainings; whether they agree."""
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="esper-", dir="/dev/shm"))
        os.chmod(name, 0o700)
        folder = Path(name)
        share = folder / "share"
        share.mkdir(mode=0o700)
        port = free_port()
        targets = [stack.enter_context(agent(share)), f"127.0.0.1:{port}"]
        alone = stack.enter_context(training("-c", ALONE, port, TRAINER.parent))
        trainings = [
            stack.enter_context(
                training(TRAINER, share, run, 0, "update", 7, "ready", "wait", *way)
            )
            for run, way in WAYS.items()
        ]
        for one in trainings:
            assert one.stdout is not None
            one.stdout.readline()
        ours = stack.enter_context(
            prometheus(folder / "prometheus", targets, interval=INTERVAL, rule_files=RULES)
        )
        scraped = folder / "scrape.yml"
        job = {"job_name": "esper", "static_configs": [{"targets": targets}]}
        scraped.write_text(
            yaml.safe_dump({"scrape_configs": [{**job, "scrape_interval": INTERVAL}]})
        )
        store, judge = (f"127.0.0.1:{free_port()}" for _ in range(2))
        stack.enter_context(
            started(
                [
                    "victoria-metrics",
                    f"-storageDataPath={folder / 'store'}",
                    f"-httpListenAddr={store}",
                    f"-promscrape.config={scraped}",
                    "-search.latencyOffset=0s",
                    "-search.disableCache",
                ],
                folder / "store.log",
            )
        )
        count = f"/api/v1/query?query={urllib.parse.quote('count(esper_run_active==1)')}"
        runs = str(len(WAYS) + 1)
        wait_until(
            lambda: _value(store, count) == runs, "VictoriaMetrics scrapes", 180.0, every=0.5
        )
        stack.enter_context(
            started(
                [
                    "vmalert",
                    *(f"-rule={path}" for path in RULES),
                    *(f"-{what}.url=http://{store}" for what in _STORES),
                    # What it sends is not looked at; a version without a notifier would not start.
                    f"-notifier.url=http://{store}",
                    f"-httpListenAddr={judge}",
                    f"-evaluationInterval={INTERVAL}",
                    "-remoteWrite.flushInterval=1s",
                ],
                folder / "judge.log",
            )
        )
        ours.wait_for("count(esper_run_active == 1)", float(runs), 120.0)
        time.sleep(15)
        for one in trainings:
            assert one.stdin is not None
            one.stdin.write(b"go\n")
            one.stdin.flush()
        alone.kill()
        time.sleep(seconds)
        theirs = firing(answer(judge, "/api/v1/alerts")["data"]["alerts"])
        own = firing(ours.api("alerts")["alerts"])
        rules = [
            rule
            for group in answer(judge, "/api/v1/rules")["data"]["groups"]
            for rule in group["rules"]
        ]
    errors = [f"{rule['name']}: {rule['lastError']}" for rule in rules if rule.get("lastError")]
    named = {(dict(each)["alertname"], dict(each).get("run_id", "")) for each in own & theirs}
    print(f"vmalert: {len(rules)} rules, {len(errors)} not evaluated")
    for words in errors:
        print(f"  {words}")
    print(
        f"fires at both: {len(own & theirs)} alerts; missing: {sorted(EXPECTED - named) or 'none'}"
    )
    for who, alone_there in (("Prometheus", own - theirs), ("vmalert", theirs - own)):
        for labels in sorted(alone_there):
            print(f"  {who} alone: {dict(labels)}")
    return bool(rules) and not errors and own == theirs and named >= EXPECTED


_STORES = ("datasource", "remoteWrite", "remoteRead")


def _value(address: str, path: str) -> str:
    try:
        found = answer(address, path)["data"]["result"]
    except OSError:
        return ""
    return str(found[0]["value"][1]) if found else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.rules_elsewhere", description=__doc__)
    parser.add_argument("--promtool", nargs="+", default=["promtool"], help="one or more programs")
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="from the deaths (default 120)"
    )
    options = parser.parse_args()
    passed = [tested(promtool) for promtool in options.promtool]
    good = all(passed)
    missing = [name for name in ("victoria-metrics", "vmalert") if not shutil.which(name)]
    if missing:
        print(f"vmalert: not run; apt-get install victoria-metrics ({', '.join(missing)} missing)")
        return 0 if good else 1
    return 0 if trial(options.seconds) and good else 1


if __name__ == "__main__":
    sys.exit(main())
