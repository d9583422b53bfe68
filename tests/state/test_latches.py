"""Latches: lit once, lit for good, and once per update (TELE-303)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from esper_exporter.state.latches import LAYER_SOURCES, Latches, parse_finiteness_detail

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("detail", "found"),
    [
        (
            "PPO update skipped (degraded): all 1 epochs hit the finiteness gate. Consecutive"
            " finiteness failures: 1/3 (run continues). Sources: log_probs[tempo]: NaN detected",
            [("log_probs", "tempo", ("nan",))],
        ),
        (
            "PPO finiteness gate halted run after 3 consecutive skipped updates:"
            " log_probs[op]: Inf detected",
            [("log_probs", "op", ("inf",))],
        ),
        (
            "x. Sources: log_probs[slot]: NaN detected; log_probs[slot]: Inf detected;"
            " ref_log_probs[op]: 3 non-finite; values: 2 non-finite; q_values: 1 non-finite",
            [
                ("log_probs", "slot", ("nan",)),
                ("log_probs", "slot", ("inf",)),
                ("ref_log_probs", "op", ("nan",)),
                ("values", None, ("nan",)),
                ("q_values", None, ("nan",)),
            ],
        ),
        ("x. Sources: log_probs[curve]: NaN detected", [("log_probs", "alpha_curve", ("nan",))]),
        ("nothing named", []),
    ],
)
def test_the_sources_are_read_from_the_detail(
    detail: str, found: list[tuple[str, str | None, tuple[str, ...]]]
) -> None:
    assert [(f.source, f.head, f.kinds) for f in parse_finiteness_detail(detail)] == found


def test_a_latch_never_goes_out_and_remembers_first_and_last() -> None:
    latches = Latches()
    for attempt, minutes in ((0, 5), (1, 1), (2, 9)):
        when = NOON + timedelta(minutes=minutes)
        latches.light_flags("nan", {"op": True, "slot": False}, when, attempt, attempt + 1)
    latch = latches.heads["op", "nan"]
    assert latch.updates == 3
    assert (latch.first, latch.last) == (NOON + timedelta(minutes=1), NOON + timedelta(minutes=9))
    assert latch.first_update == 1
    assert list(latches.lit_heads()) == [("op", "nan")]


def test_one_update_counts_once_however_it_is_reported() -> None:
    latches = Latches()
    latches.light_flags("nan", {"op": True}, NOON, 7, 1)
    latches.light_detail("Sources: log_probs[op]: NaN detected", NOON, 7)
    assert latches.heads["op", "nan"].updates == 1
    latches.light_detail("Sources: log_probs[op]: NaN detected", NOON, 8)
    assert latches.heads["op", "nan"].updates == 2


def test_an_unknown_head_and_a_text_that_names_nothing_are_not_lost() -> None:
    latches = Latches()
    latches.light_flags("inf", {"tail": True}, NOON, 0, None)
    assert latches.sources["other"].lit
    other = Latches()
    other.light_detail("", NOON, 0)
    assert other.sources["other"].lit
    assert not list(other.lit_heads())


def test_the_names_of_lit_latches_are_heads_by_kind_then_sources() -> None:
    latches = Latches()
    assert latches.lit_names() == ()
    latches.light_source("gradients", NOON, 0)
    assert latches.lit_names() == ("gradients",)
    latches.light_flags("inf", {"op": True}, NOON, 1, None)
    assert latches.lit_names() == ("op/inf", "log_probs", "gradients")


def test_what_earlier_processes_saw_is_added_to_what_this_one_saw() -> None:
    """This process began to count before it had read what the one before it kept."""
    mine, earlier = Latches(), Latches()
    mine.light_head("op", "nan", NOON + timedelta(minutes=9), 0, 40)
    for attempt in range(3):
        earlier.light_head("op", "nan", NOON + timedelta(minutes=attempt), attempt, attempt + 1)
    earlier.light_source("loss", NOON, 5, 6)
    mine.add(earlier)
    op, loss = mine.heads["op", "nan"], mine.sources["loss"]
    assert (op.updates, op.first, op.first_update) == (4, NOON, 1)
    assert op.last == NOON + timedelta(minutes=9)
    assert (loss.updates, loss.first, loss.first_update) == (1, NOON, 6)


def test_a_head_s_flag_lights_the_log_probabilities_too() -> None:
    latches = Latches()
    latches.light_flags("nan", {"op": True}, NOON, 0, 3)
    source = latches.sources["log_probs"]
    assert (source.updates, source.first_update) == (1, 3)


@pytest.mark.parametrize("source", sorted(LAYER_SOURCES))
def test_what_is_named_beside_a_source_of_layers_is_no_head(source: str) -> None:
    latches = Latches()
    latches.light_detail(f"x. Sources: {source}[op]: NaN detected", NOON, 0)
    assert latches.lit_names() == (source,)
