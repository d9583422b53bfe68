"""Make the changes of hand_mutants.yml one at a time, and see whether a test notices.

usage: mutate_by_hand.py [FILE …]

FILE is a path within alerts/, such as alertmanager.yml or rules/run.yml; all of them when there is
none. Rules are tried with promtool and the tests in alerts/tests, everything else with
tests/test_alert_routes.py. Prints the survivors; exits 1 below 95 %.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "alerts"
ENOUGH = 0.95
NEEDED = ("pyproject.toml", "tests/support", "tests/test_alert_routes.py")


@dataclass(frozen=True)
class Mutant:
    """One place of one file that reads differently."""

    file: str
    old: str
    new: str
    nth: int

    @property
    def text(self) -> str:
        """The file with the change; ValueError where the place is not there."""
        parts = (ALERTS / self.file).read_text().split(self.old)
        if len(parts) <= self.nth:
            raise ValueError(f"{self.file} has no {self.old!r} number {self.nth}")
        return self.old.join(parts[: self.nth]) + self.new + self.old.join(parts[self.nth :])


def mutants() -> list[Mutant]:
    """All of the list."""
    listed = yaml.safe_load((Path(__file__).parent / "hand_mutants.yml").read_text())
    return [
        Mutant(file, each["old"], each["new"], each.get("nth", 1))
        for file, changes in listed.items()
        for each in changes
    ]


def killed(mutant: Mutant) -> bool:
    """Whether a test fails in a copy with the change."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        shutil.copytree(ALERTS, copy / "alerts")
        (copy / "alerts" / mutant.file).write_text(mutant.text)
        if mutant.file.startswith("rules/"):
            return _fails_promtool(copy, Path(mutant.file).name)
        for needed in NEEDED:
            if (ROOT / needed).is_dir():
                shutil.copytree(ROOT / needed, copy / needed)
            else:
                (copy / needed).parent.mkdir(exist_ok=True)
                shutil.copy(ROOT / needed, copy / needed)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "tests/test_alert_routes.py"],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(copy / "tests"), *sys.path])},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stdout + done.stderr)
        return done.returncode == 1


NOTICED: Counter[str] = Counter()
"""How many changes each file of tests has noticed."""


def _fails_promtool(copy: Path, rules: str) -> bool:
    tests = (copy / "alerts" / "tests").glob("*.yml")
    # What noticed most changes first.
    for test in sorted(tests, key=lambda each: (-NOTICED[each.name], each.name)):
        if f"rules/{rules}" not in test.read_text():
            continue
        command = ["promtool", "test", "rules", test]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            NOTICED[test.name] += 1
            return True
    return False


def main() -> int:
    chosen = [each for each in mutants() if not sys.argv[1:] or each.file in sys.argv[1:]]
    if not chosen:
        sys.exit(f"no change of {', '.join(sys.argv[1:])} is listed")
    dead = 0
    with ThreadPoolExecutor(2) as pool:
        for mutant, noticed in zip(chosen, pool.map(killed, chosen), strict=True):
            dead += noticed
            if not noticed:
                number = f" (number {mutant.nth})" if mutant.nth > 1 else ""
                print(
                    f"survived  {mutant.file}: {mutant.old!r}{number} → {mutant.new!r}", flush=True
                )
    share = dead / len(chosen)
    print(f"killed {dead} of {len(chosen)} ({share:.1%}) by hand; {ENOUGH:.0%} are wanted")
    return 0 if share >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
