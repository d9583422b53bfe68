"""Change alerting and recording rules one place at a time, and see whether a promtool test notices.

usage: mutate_alerts.py [NAME …]

NAME is that of a file of rules, such as run.yml, or of a rule; all of them when there is none.
Prints the survivors and the share that was killed. A rule is tried with those that record what it
reads and those that read what it records. Exits 1 below 95 %, where alerts/tests/SURVIVORS.md and
the survivors are not the same, and where a test fails before anything is changed.
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
                yield Mutant(path, _name(rule), what, rule | change)


def _name(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


def _reads(rule: dict[str, Any], name: str) -> bool:
    return bool(re.search(rf"(?<![\w:]){re.escape(name)}(?![\w:])", rule["expr"]))


def _reading(rules: list[dict[str, Any]], name: str) -> set[str]:
    """That rule, and the rules that read what it records, directly or through others."""
    found, before = {name}, set[str]()
    while found != before:
        before = set(found)
        found |= {_name(rule) for rule in rules for one in before if _reads(rule, one)}
    return found


def _recording(rules: list[dict[str, Any]], names: set[str]) -> set[str]:
    """Those rules, and the rules that record what they read, directly or through others."""
    found, before = set(names), set[str]()
    while found != before:
        before = set(found)
        readers = [rule for rule in rules if _name(rule) in before]
        found |= {
            _name(rule)
            for rule in rules
            if "record" in rule and any(_reads(reader, rule["record"]) for reader in readers)
        }
    return found


def _alertname(sample: dict[str, Any]) -> str:
    found = re.search(r'alertname="(\w+)"', sample["labels"])
    return found[1] if found else ""


def _named_beside(rules: list[dict[str, Any]], names: set[str]) -> set[str]:
    """The other rules that one query of a test asks for together with these."""
    every = {_name(rule) for rule in rules}
    queries = [
        query["expr"]
        for tests in every_test()
        for test in tests["tests"]
        for query in test.get("promql_expr_test", [])
    ]
    return {
        other
        for query in queries
        if any(name in query for name in names)
        for other in every
        if other in query
    }


OF_ALL_ALERTS = "count by (alertname) (ALERTS{alertstate="
"""How a query begins that asks for every alert by its name."""


def _about(
    tests: dict[str, Any], names: set[str], present: set[str], expressions: str
) -> dict[str, Any]:
    """What a test file says of these rules where only some are present, with the series that the
    expressions read."""
    kept = []
    for test in tests["tests"]:
        alerts = [each for each in test.get("alert_rule_test", []) if each["alertname"] in names]
        queries = [
            each
            for each in test.get("promql_expr_test", [])
            if any(name in each["expr"] for name in names)
        ]
        queries += [
            {**each, "exp_samples": [s for s in each["exp_samples"] if _alertname(s) in present]}
            for each in test.get("promql_expr_test", [])
            if each["expr"].startswith(OF_ALL_ALERTS)
        ]
        read = expressions + " ".join(each["expr"] for each in queries)
        series = [
            each
            for each in test["input_series"]
            if re.search(rf"(?<![\w:]){each['series'].partition('{')[0]}(?![\w:])", read)
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
    """What the test files say; those first that take least time, by what they evaluate."""
    found = [yaml.safe_load(path.read_text()) for path in sorted((ALERTS / "tests").glob("*.yml"))]
    return sorted(found, key=_steps)


def _steps(tests: dict[str, Any]) -> float:
    seconds = {"s": 1, "m": 60, "h": 3600}
    last = max(
        sum(float(n) * seconds[unit] for n, unit in re.findall(r"([\d.]+)([smh])", str(each)))
        for test in tests["tests"]
        for kind in ("alert_rule_test", "promql_expr_test")
        for each in (check["eval_time"] for check in test.get(kind, []))
    )
    every = tests["evaluation_interval"]
    return last / (float(every[:-1]) * seconds[every[-1]])


@cache
def _every_group() -> dict[str, list[dict[str, Any]]]:
    """The groups of every file of rules, by the file's name."""
    return {
        path.name: yaml.safe_load(path.read_text())["groups"]
        for path in sorted((ALERTS / "rules").glob("*.yml"))
    }


NOTICED: Counter[tuple[str, int]] = Counter()
"""How many changes of a rule each test file has noticed."""


def _fails(path: Path, changed: dict[str, Any] | None, name: str) -> bool:
    """Whether a test of a rule fails, or of one that reads it, once the rule is ``changed``."""
    rules = [
        rule for groups in _every_group().values() for group in groups for rule in group["rules"]
    ]
    read_by = _reading(rules, name)
    needed = _recording(rules, read_by | _named_beside(rules, read_by))
    with tempfile.TemporaryDirectory() as folder:
        mutated, test = Path(folder) / "rules.yml", Path(folder) / "test.yml"
        # What noticed most changes of this rule first.
        order = sorted(enumerate(every_test()), key=lambda each: -NOTICED[name, each[0]])
        for number, tests in order:
            files = [Path(each).name for each in tests["rule_files"]]
            if path.name not in files:
                continue
            kept = [
                {**group, "rules": [rule for rule in group["rules"] if _name(rule) in needed]}
                for file in files
                for group in _every_group()[file]
            ]
            kept = [group for group in kept if group["rules"]]
            expressions = yaml.safe_dump(kept, width=10_000)
            present = {_name(rule) for group in kept for rule in group["rules"]}
            about = _about(tests, read_by & present, present, expressions)
            if not about["tests"]:
                continue
            for group in kept:
                group["rules"] = [
                    changed if changed and _name(rule) == name else rule for rule in group["rules"]
                ]
            mutated.write_text(yaml.safe_dump({"groups": kept}))
            test.write_text(yaml.safe_dump(about | {"rule_files": [str(mutated)]}))
            command = ["promtool", "test", "rules", test]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                if changed is None:
                    print(f"{name} fails unchanged: {done.stdout}{done.stderr}", file=sys.stderr)
                NOTICED[name, number] += 1
                return True
    return False


def killed(mutant: Mutant) -> bool:
    """Whether a test of that rule fails, or promtool takes the rule for none."""
    return _fails(mutant.path, mutant.definition, mutant.rule)


def passes_unchanged(path: Path, rule: str) -> bool:
    """Whether the tests of a rule pass as it is: else whatever is done to it fails them."""
    return not _fails(path, None, rule)


def explained() -> set[tuple[str, str]]:
    """The survivors that alerts/tests/SURVIVORS.md gives a reason for: rule and change."""
    lines = (ALERTS / "tests" / "SURVIVORS.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    return {(row[0].strip("`"), row[1].strip("`")) for row in rows}


def main() -> int:
    names = set(sys.argv[1:])
    every = [each for each in mutants() if not names or names & {each.path.name, each.rule}]
    known = {each for each in explained() if each[0] in {mutant.rule for mutant in every}}
    survivors: set[tuple[str, str]] = set()
    with ThreadPoolExecutor(2) as pool:
        subjects = sorted({(mutant.path, mutant.rule) for mutant in every})
        if not all(pool.map(passes_unchanged, *zip(*subjects, strict=True))):
            return 1
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
