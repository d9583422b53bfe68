"""Every query of every dashboard, asked of a Prometheus and of the store: the same answers?"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.dashboards import queries
from benchmarks.store.store_servers import Server, TrialError

CHOSEN = {"run": "run-1", "__range": "2m", "__rate_interval": "1m", "__interval": "1m"}
RATES = re.compile(r"\b(?:rate|irate|increase|delta|deriv|changes|resets|predict_linear)\b")
FAR = 0.35
"""How far two rates of the same samples may lie apart: Prometheus extrapolates to the window's
ends, MetricsQL counts from the sample before the window."""

EMPTY, SAME = "empty in both", "the same"
NAN = "NaN in Prometheus; VictoriaMetrics leaves it out, or has the value before"
TIES = "topk() of equal values: others of them"
ENDED = "timestamp(): VictoriaMetrics still shows a series that has ended"
RATE = "a rate: MetricsQL does not extrapolate"
OTHER = "another answer"
EXPLAINED = frozenset({NAN, TIES, ENDED, RATE})
"""Where the two languages differ, and so may the answers."""

Answer = dict[tuple[tuple[str, str], ...], float]


@dataclass
class Comparison:
    """How many queries, and which answers differ: by reason, with an example of each."""

    asked: int = 0
    empty: int = 0
    same: int = 0
    differing: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def differ(self, reason: str, where: str) -> None:
        """Note a query whose answers differ."""
        self.differing[reason] += 1
        self.examples.setdefault(reason, where)


def resolved(expression: str) -> str:
    """The query as Grafana sends it: all of everything, but one run."""
    return re.sub(r"\$\{?(\w+)\}?", lambda name: CHOSEN.get(name[1], ".*"), expression)


def answer(server: Server, expression: str, moment: float, cluster: str) -> Answer:
    """An instant query's values by labels, without the cluster's own."""
    found: Answer = {}
    for each in server.query(expression, moment):
        labels = {k: v for k, v in each["metric"].items() if (k, v) != ("cluster", cluster)}
        found[tuple(sorted(labels.items()))] = float(each["value"][1])
    return found


def close(one: float, other: float, far: float) -> bool:
    """Whether two values are the same, or within a share of each other."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=max(far, 1e-9), abs_tol=1e-9)


def widened(query: str, interval: int) -> str:
    """The query with each range longer by one scrape: MetricsQL counts an increase from the sample
    before the range on, and where a counter steps, that sample decides."""
    return re.sub(r"\[(\d+)m\]", lambda minutes: f"[{int(minutes[1]) * 60 + interval}s]", query)


def compare(
    prometheus: Server, store: Server, cluster: str, moment: float, interval: int
) -> Comparison:
    """Ask both at one moment, at which both have every sample of before; ``interval`` is that of
    the scrapes, seconds."""
    found = Comparison()
    for board, title, expression, _ in queries():
        query, where = resolved(expression), f"{board}, {title}"
        found.asked += 1
        expected = answer(prometheus, query, moment, cluster)
        try:
            shown = answer(store, query, moment, cluster)
        except TrialError as error:
            found.differ("the store refuses the query", f"{where}: {error}")
            continue
        verdict = judge(query, expected, shown)
        if verdict == OTHER and RATES.search(query):
            expected = answer(prometheus, widened(query, interval), moment, cluster)
            verdict = judge(query, expected, shown)
            verdict = RATE if verdict == SAME else verdict
        if verdict == EMPTY:
            found.empty += 1
        elif verdict == SAME:
            found.same += 1
        else:
            found.differ(verdict, f"{where}: {query}")
    return found


def judge(query: str, expected: Answer, shown: Answer) -> str:
    """Whether the store's answer is the same, or why it is another one."""
    if not expected and not shown:
        return EMPTY
    numbers = {key: value for key, value in expected.items() if not math.isnan(value)}
    alike = expected.keys() == shown.keys()
    if alike and all(close(value, shown[key], 0.0) for key, value in expected.items()):
        return SAME
    far = FAR if RATES.search(query) else 0.0
    if len(numbers) < len(expected) and all(
        key in shown and close(value, shown[key], far) for key, value in numbers.items()
    ):
        return NAN
    if "topk" in query and len(expected) == len(shown):
        pairs = zip(sorted(expected.values()), sorted(shown.values()), strict=True)
        if all(close(one, other, far) for one, other in pairs):
            return TIES
    if "timestamp(" in query and expected.keys() <= shown.keys():
        return ENDED
    if far and alike and all(close(value, shown[key], far) for key, value in expected.items()):
        return RATE
    return OTHER
