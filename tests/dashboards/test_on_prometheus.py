"""The dashboards against a real server: every query answers with what was recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dashboards.asking import ask, column_of, query_of, resolved
from dashboards.boards import BOARDS, expressions, variables
from dashboards.facts import FACTS, FACTS_MIDWAY, MIDWAY, recorded, when
from dashboards.filled import filled
from support.prometheus import Prometheus

NOTHING_THERE = {
    "ALERTS{": "no rules are evaluated here",
    "esper_run_failed": "no run failed",
    "esper_tolaria_rollbacks_total": "no rollback was recorded",
    "esper_run_end_timestamp_seconds": "the run is active; a recording has no end",
    "esper_tolaria_env_last_rollback_timestamp_seconds": "no rollback was recorded",
    "esper_simic_reward_hacking_suspected_total": "nothing was suspected",
    'kind="inf"}[$__range]': "what was recorded was NaN",
    'stage="PRUNED"': "no slot is in this stage at these times",
    'stage="EMBARGOED"': "no slot is in this stage at these times",
    'stage="RESETTING"': "no slot is in this stage at these times",
    "esper_gpu_throttled_seconds_total": "simulated GPUs do not count it",
    "esper_gpu_xid_errors_total": "it comes once, perhaps before the first scrape",
    "esper_gpu_ecc_errors_total": "simulated GPUs have no such errors",
    "esper_gpu_pcie_replays_total": "simulated GPUs have no such errors",
    "esper_gpu_nvlink_errors_total": "simulated GPUs have no such errors",
    "esper_gpu_pcie_throughput_bytes": "measured only when asked for",
    "esper_host_cgroup_memory_limit_bytes": "the machine of a test need not limit its memory",
    "esper_exporter_events_rejected_total": "all events were good",
    "esper_exporter_events_duplicate_total": "no event came twice",
    "esper_exporter_internal_errors_total": "there were none",
    "esper_exporter_series_dropped_total": "there were none",
    "esper_exporter_fields_ignored_total": "there were none",
    "esper_exporter_gpu_field_errors_total": "there were none",
    "esper_exporter_push_failures_total": "the receiver took every push",
    "esper_exporter_push_samples_dropped_total": "the receiver took every push",
}
"""Parts of queries that may find nothing on this server, and why."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with filled(tmp_path_factory.mktemp("filled")) as running:
        yield running


def finds(server: Prometheus, expression: str) -> bool:
    """Whether a query finds something of the live run now, or of a recorded one at its time."""
    moments = [("live", time.time())]
    moments += [("run2b", when(recorded("run2b")[-1]))]
    begun, ended = when(recorded("run1")[0]), when(recorded("run1")[-1])
    moments += [("run1", begun + share * (ended - begun)) for share in (0.25, 0.5, 0.75, 0.95, 1.0)]
    return any(
        server.api("query", query=resolved(expression, run=run), time=f"{moment:.3f}")["result"]
        for run, moment in moments
    )


def test_every_query_of_everything_parses(server: Prometheus) -> None:
    for where, expression in expressions(BOARDS["esper-run"]):
        if not where.startswith("$"):
            server.api("query", query=resolved(expression, run="live"))


# What a run does not report is there as well, empty.
@pytest.mark.parametrize("uid", [uid for uid in BOARDS if uid != "esper-run"])
def test_every_query_parses_and_finds_something(server: Prometheus, uid: str) -> None:
    empty = [
        (where, expression)
        for where, expression in expressions(BOARDS[uid])
        if not where.startswith("$")
        and not finds(server, expression)
        and not any(part in expression for part in NOTHING_THERE)
    ]
    assert empty == []


def test_what_may_find_nothing_is_still_asked_for() -> None:
    queries = [e for board in BOARDS.values() for _, e in expressions(board)]
    unused = [part for part in NOTHING_THERE if not any(part in query for query in queries)]
    assert unused == []


@pytest.mark.parametrize("uid", BOARDS)
def test_every_variable_resolves(server: Prometheus, uid: str) -> None:
    for variable in variables(BOARDS[uid]):
        query = resolved(variable["query"]["query"], run="live")
        if query.startswith("label_values("):
            selector, label = query.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            assert server.api(f"label/{label}/values", **{"match[]": selector}), variable["name"]
        else:
            inner = query.removeprefix("query_result(").removesuffix(")")
            assert server.api("query", query=inner)["result"], variable["name"]


@pytest.mark.parametrize("fact", [*FACTS, *FACTS_MIDWAY])
def test_a_panel_shows_what_was_recorded(server: Prometheus, fact: str) -> None:
    expression, label, expected = {**FACTS, **FACTS_MIDWAY}[fact]
    # No longer than five minutes after the run, or a server finds nothing of now.
    end = MIDWAY if fact in FACTS_MIDWAY else when(recorded("run1")[-1]) + 5
    shown = ask(server, expression, end, label, run="run1")
    assert shown == pytest.approx(expected, rel=1e-12)


def test_bars_of_events_add_up_to_what_was_recorded(server: Prometheus) -> None:
    begun, ended = when(recorded("run2b")[0]), when(recorded("run2b")[-1])
    skips = resolved(query_of("esper-fleet", "Skipped updates"), run="run2b", __interval="60s")
    skips = skips.replace('group_id=~".*"', 'run_id="run2b",group_id=~".*"')
    answer = server.api("query_range", query=skips, start=begun - 120, end=ended + 120, step=60)
    values = [float(value) for each in answer["result"] for _, value in each["values"]]
    assert sum(values) == 3
    assert max(values) > 0


def test_the_latches_of_a_run_that_died_say_which_heads_and_since_when(server: Prometheus) -> None:
    end = when(recorded("run2b")[-1]) + 600
    reported: Callable[[str], Any] = lambda column: ask(  # noqa: E731
        server, column_of("esper-heads", "The heads", column), end, "head", run="run2b"
    )
    assert {head for head, lit in reported("NaN").items() if lit} == {"tempo", "op"}
    assert not any(reported("Inf").values())
    skips = [
        event
        for event in recorded("run2b")
        if str(event["data"].get("anomaly_type")).startswith("ppo_finiteness_")
    ]
    first = {
        head: 1000 * min(when(e) for e in skips if f"log_probs[{head}]" in e["data"]["detail"])
        for head in ("tempo", "op")
    }
    assert reported("NaN since") == pytest.approx(first, rel=1e-9)
    skipped = query_of("esper-heads", "Updates skipped")
    assert ask(server, skipped, end, run="run2b") == len(skips) == 3
