"""Change alerting and recording rules one place at a time, and see whether a promtool test notices.

usage: mutate_alerts.py [FILE …]

FILE is the name of a rule file, such as run.yml; all of them when there is none. Prints the
survivors and the share that was killed. Exits 1 below 95 %, and where alerts/tests/SURVIVORS.md
and the survivors are not the same.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ALERTS = Path(__file__).parents[1] / "alerts"
ENOUGH = 0.95
COMPARISON = re.compile(r"(?<=\s)(<=|>=|==|<|>)(?=\s)")
OPPOSITE = {"<": ">", ">": "<", "<=": ">", ">=": "<", "==": "!="}
THRESHOLD = re.compile(r"((?:<=|>=|==|<|>) )(-?\d+(?:\.\d+)?)\b")
LABELS = re.compile(r"\b(by|on) \(([^)]+)\)")
MATCHER = re.compile(r"(?<=[{,\s])(\w+)(!?[=~]~?)\"")
OPPOSITE_MATCHER = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}


@dataclass(frozen=True)
class Mutant:
    """A rule of a file in which one thing is another."""

    path: Path
    rule: str
    change: str
    definition: dict[str, Any]


def _expressions(expression: str) -> Iterator[tuple[str, str]]:
    """Each change of an expression in words, and what comes of it; #2 is the second such place."""
    seen: Counter[str] = Counter()

    def named(change: str) -> str:
        seen[change] += 1
        return change if seen[change] == 1 else f"{change} #{seen[change]}"

    def replaced(found: re.Match[str], new: str) -> str:
        return expression[: found.start()] + new + expression[found.end() :]

    for found in COMPARISON.finditer(expression):
        new = OPPOSITE[found[1]]
        yield named(f"{found[0]} → {new}"), replaced(found, new)
    for found in THRESHOLD.finditer(expression):
        value = float(found[2])
        for new in (value * 2, value / 2) if value else (1.0, -1.0):
            change = f"{found[0]} → {found[1]}{new:g}"
            yield named(change), replaced(found, f"{found[1]}{new:g}")
    for found in LABELS.finditer(expression):
        labels = found[2].split(", ")
        for label in labels if len(labels) > 1 else ():
            rest = ", ".join(each for each in labels if each != label)
            change = f"{found[1]} ({found[2]}) without {label}"
            yield named(change), replaced(found, f"{found[1]} ({rest})")
    for found in MATCHER.finditer(expression):
        new = OPPOSITE_MATCHER[found[2]]
        yield named(f"{found[1]}{found[2]} → {new}"), replaced(found, f'{found[1]}{new}"')


def mutants() -> Iterator[Mutant]:
    """Every rule's thresholds, comparisons, label lists, matchers and ``for``, one at a time."""
    for path in sorted((ALERTS / "rules").glob("*.yml")):
        groups = yaml.safe_load(path.read_text())["groups"]
        for rule in (rule for group in groups for rule in group["rules"]):
            changes = [({"expr": new}, what) for what, new in _expressions(rule["expr"])]
            if "for" in rule:
                seconds = int(rule["for"][:-1]) * {"s": 1, "m": 60, "h": 3600}[rule["for"][-1]]
                changes += [
                    ({"for": f"{new}s"}, f"for {rule['for']} → {new}s") for new in (0, seconds * 2)
                ]
            for change, what in changes:
                yield Mutant(path, rule.get("alert") or rule["record"], what, rule | change)


def _about(tests: dict[str, Any], rule: dict[str, Any]) -> dict[str, Any]:
    """What a test file says of one rule, with the series that the rule reads."""
    name, expression = rule.get("alert") or rule["record"], rule["expr"]
    kept = []
    for test in tests["tests"]:
        alerts = [each for each in test.get("alert_rule_test", []) if each["alertname"] == name]
        queries = [each for each in test.get("promql_expr_test", []) if name in each["expr"]]
        series = [
            each
            for each in test["input_series"]
            if re.search(rf"\b{each['series'].partition('{')[0]}\b", expression)
        ]
        if alerts or queries:
            kept.append(
                {
                    **test,
                    "input_series": series,
                    "alert_rule_test": alerts,
                    "promql_expr_test": queries,
                }
            )
    return {**tests, "tests": kept}


@cache
def every_test() -> list[dict[str, Any]]:
    """What the test files say."""
    return [yaml.safe_load(path.read_text()) for path in sorted((ALERTS / "tests").glob("*.yml"))]


def killed(mutant: Mutant) -> bool:
    """Whether a test of that rule fails, or promtool takes the rule for none."""
    with tempfile.TemporaryDirectory() as folder:
        rules, test = Path(folder) / "rules.yml", Path(folder) / "test.yml"
        rules.write_text(
            yaml.safe_dump({"groups": [{"name": "mutant", "rules": [mutant.definition]}]})
        )
        for tests in every_test():
            if not any(Path(name).name == mutant.path.name for name in tests["rule_files"]):
                continue
            about = _about(tests, mutant.definition) | {"rule_files": [str(rules)]}
            test.write_text(yaml.safe_dump(about))
            command = ["promtool", "test", "rules", test]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return True
    return False


def explained() -> set[tuple[str, str]]:
    """The survivors that alerts/tests/SURVIVORS.md gives a reason for: rule and change."""
    lines = (ALERTS / "tests" / "SURVIVORS.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    return {(row[0].strip("`"), row[1].strip("`")) for row in rows}


def main() -> int:
    files = sys.argv[1:]
    every = [mutant for mutant in mutants() if not files or mutant.path.name in files]
    known = {each for each in explained() if each[0] in {mutant.rule for mutant in every}}
    survivors: set[tuple[str, str]] = set()
    with ThreadPoolExecutor(2) as pool:
        for mutant, dead in zip(every, pool.map(killed, every), strict=True):
            if not dead:
                survivors.add((mutant.rule, mutant.change))
                note = "" if (mutant.rule, mutant.change) in known else "  (not explained)"
                print(f"survived  {mutant.rule}: {mutant.change}{note}", flush=True)
    for rule, change in sorted(known - survivors):
        print(f"explained, yet killed or gone  {rule}: {change}")
    share = 1 - len(survivors) / len(every)
    killed_ones = len(every) - len(survivors)
    print(f"killed {killed_ones} of {len(every)} ({share:.1%}); {ENOUGH:.0%} are wanted")
    return 0 if share >= ENOUGH and survivors == known else 1


if __name__ == "__main__":
    sys.exit(main())
