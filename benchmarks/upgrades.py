"""Try versions beside each other: agents and exporters, state, rules, across a rename of metrics.

usage: python -m benchmarks.upgrades [REVISION ...]      git revisions to be the version before

Each revision is built as a wheel from git's history and installed in a separate folder. The
default revisions: the last one before metrics were renamed, and one from the day before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.openmetrics import parser

ROOT = Path(__file__).parents[1]
BEFORE = ("857b64f", "b4e0314")
NEW = "this tree"
TRAINER = ROOT / "tests" / "agent" / "trainer.py"
LATCH = (
    'esper_tamiyo_head_nonfinite_latched{run_id="night-7",group_id="default",rank="%d",head="op",'
    'kind="nan"} 1.0'
)

PAGE = """
import sys, time
from pathlib import Path
from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
from esper_exporter.serve.negotiation import negotiate
agent = NodeAgent(AgentSettings(shares=[Path(sys.argv[1])], port=0, gpu_vitals="off",
                                host_vitals="off"))
accept = "application/openmetrics-text; version=1.0.0" if len(sys.argv) > 2 else None
sys.stdout.write(agent.render(negotiate(accept), False).decode())
"""
KEEP = """
import sys, time
from esper_exporter import Exporter
exporter = Exporter(port=0, run_id="kept", state_dir=sys.argv[1], linger=0.0,
                    gpu_vitals="off", host_vitals="off", watch_process=False)
sys.path.insert(0, sys.argv[2])
import trainer
exporter.emit({"event_type": "TRAINING_STARTED", "timestamp": time.time(),
               "data": trainer.STARTED})
if sys.argv[3] == "nan":
    exporter.emit(trainer.update(1, "op"))
exporter.start()
print(exporter.render().decode())
exporter.close()
"""
NAMES = """
import json
from esper_exporter.metrics.catalogue import catalogue
print(json.dumps(sorted(metric.name for metric in catalogue().metrics)))
"""


parse: Callable[[str], Any] = parser.text_string_to_metric_families


class TrialError(Exception):
    """Two versions do not work together; the message is for a person."""


@dataclass(frozen=True)
class Version:
    """An installed version: the folder to import it from, and its rules."""

    name: str
    folder: Path
    rules: Path

    def run(self, program: str, *arguments: object, seconds: float = 300.0) -> str:
        """Run a program with this version; its output."""
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise TrialError(f"{self.name}: {done.stderr.strip()[-600:]}")
        return done.stdout

    @property
    def has_agent(self) -> bool:
        """Whether it has a node agent, and exporters that share their pages."""
        return (self.folder / "esper_exporter" / "agent" / "node_agent.py").exists()

    def environment(self) -> dict[str, str]:
        """The environment of a process of this version."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("ESPER_", "SLURM_"))}
        return {**kept, "PYTHONPATH": str(self.folder), "PYTHONSAFEPATH": "1"}

    def metrics(self) -> set[str]:
        """The names of its metrics."""
        return set(json.loads(self.run(NAMES)))

    def expressions(self) -> Iterator[tuple[str, str]]:
        """Its alerts and recording rules, each by name with its expression."""
        for path in sorted(self.rules.glob("*.yml")):
            for group in yaml.safe_load(path.read_text())["groups"]:
                for rule in group["rules"]:
                    yield rule.get("alert") or rule["record"], rule["expr"]


def install(revision: str, folder: Path) -> Version:
    """Build a revision's wheel and install it, and take its rules."""
    tree = folder / "tree"
    tree.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "x"], input=archive, cwd=tree, check=True)
    python = [sys.executable, "-m"]
    subprocess.run(
        [*python, "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [*python, "pip", "install", "-q", "--no-deps", "--target", folder / "site", wheel],
        check=True,
        capture_output=True,
    )
    return Version(revision, folder / "site", tree / "alerts" / "rules")


@contextmanager
def trained(version: Version, share: Path, rank: int, *steps: str) -> Iterator[None]:
    """A trainer of a version that shares its page, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, str(TRAINER), str(share), "night-7", str(rank), *steps],
        env=version.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def shows(page: str, *lines: str) -> None:
    """A page parses strictly where it is OpenMetrics, and has these samples."""
    if page.rstrip().endswith("# EOF"):
        list(parse(page))
    missing = [line for line in lines if line not in page]
    if missing:
        raise TrialError(f"the page lacks {missing[0]}")


def a_page_across_versions(old: Version, new: Version, folder: Path) -> str:
    """A trainer of one version, an agent of the other; alive and killed."""
    for number, (trainer, agent) in enumerate(((old, new), (new, old))):
        share = folder / f"share-{number}"
        with trained(trainer, share, 0, "update", "1", "nan", "op", "ready", "pause"):
            shows(agent.run(PAGE, share), LATCH % 0)
            shows(agent.run(PAGE, share, "openmetrics"))
        page = agent.run(PAGE, share)
        shows(page, LATCH % 0)
        if not re.search(r'^esper_run_failed\{.*reason="died".* 1\.0$', page, re.MULTILINE):
            raise TrialError(f"an agent of {agent.name} does not show the death")
    return "old → new and new → old: latch and death are shown"


def two_versions_on_one_node(old: Version, new: Version, folder: Path) -> str:
    """Ranks of both versions behind the new agent, in one page that parses strictly."""
    share = folder / "mixed"
    with (
        trained(old, share, 0, "nan", "op", "ready", "pause"),
        trained(new, share, 1, "nan", "op", "ready", "pause"),
    ):
        shows(new.run(PAGE, share), LATCH % 0, LATCH % 1)
        shows(new.run(PAGE, share, "openmetrics"))
    return "both ranks on one page; OpenMetrics parses strictly"


def agents_take_over(old: Version, new: Version, folder: Path) -> str:
    """A dead process' page, served by the old agent, then by the new one, then by the old one."""
    share = folder / "taken-over"
    with trained(old, share, 0, "nan", "op", "ready", "pause"):
        pass
    for agent in (old, new, old):
        shows(agent.run(PAGE, share), LATCH % 0)
    return "old, new, old again: the page of a dead process stays"


def latches_on_disk(old: Version, new: Version, folder: Path) -> str:
    """A run that is resumed under another version still shows its latch."""
    latch = (LATCH % 0).replace("night-7", "kept")
    for number, (first, second) in enumerate(((old, new), (new, old))):
        state = folder / f"state-{number}"
        shows(first.run(KEEP, state, TRAINER.parent, "nan"), latch)
        shows(second.run(KEEP, state, TRAINER.parent, "none"), latch)
    return "old → new and new → old: latches come back"


def rules_across_a_rename(old: Version, new: Version, _folder: Path) -> str:
    """Which rules of one version name a metric that the other does not export."""
    blind = []
    for rules, exporter in ((new, old), (old, new)):
        known = exporter.metrics()
        for name, expression in rules.expressions():
            named = set(re.findall(r"(?<![\w:])esper_[a-z0-9_]+(?!\w|:)", expression))
            stems = {re.sub(r"_(bucket|count|sum)$", "", one) for one in named - known}
            if gone := sorted(stems - known):
                which = "the new rules" if rules is new else "the old rules"
                blind.append(f"{name} of {which} ({', '.join(gone)})")
    for version in (old, new):
        subprocess.run(
            ["promtool", "check", "rules", *map(str, sorted(version.rules.glob("*.yml")))],
            check=True,
            capture_output=True,
        )
    renamed = len(old.metrics() - new.metrics()), len(new.metrics() - old.metrics())
    said = f"{renamed[0]} metrics gone, {renamed[1]} new"
    return f"{said}; rules that see only one version: {'; '.join(sorted(set(blind))) or 'none'}"


Trial = Callable[[Version, Version, Path], str]
OF_AGENTS: tuple[Trial, ...] = (a_page_across_versions, two_versions_on_one_node, agents_take_over)
OF_ALL: tuple[Trial, ...] = (latches_on_disk, rules_across_a_rename)


def main(revisions: list[str]) -> int:
    """Run all trials with each revision; return the number that failed."""
    failed = 0
    new = Version(NEW, ROOT / "exporter", ROOT / "alerts" / "rules")
    for revision in revisions:
        known: Any = subprocess.run(
            ["git", "log", "-1", "--format=%h of %cs", revision],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if known.returncode:
            print(f"· not run: git's history here has no {revision}; not proven: upgrades from it")
            continue
        print(f"· {known.stdout.strip()} → {NEW}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="esper-upgrade-"))
        try:
            old = install(revision, folder / "old")
            trials = (*(OF_AGENTS if old.has_agent else ()), *OF_ALL)
            if not old.has_agent:
                print("        the version before had no node agent")
            for number, trial in enumerate(trials):
                began = time.monotonic()
                try:
                    said, word = trial(old, new, folder / str(number)), "ok"
                except (TrialError, subprocess.SubprocessError) as problem:
                    said, word, failed = str(problem), "FAILED", failed + 1
                name = trial.__name__.replace("_", " ")
                print(f"{word:7} {name:26} {time.monotonic() - began:4.0f} s  {said}", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(BEFORE)))
