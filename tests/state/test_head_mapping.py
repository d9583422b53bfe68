"""Heads are one mapping, however an event or a foreign snapshot spells them."""

from __future__ import annotations

import math
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from esper_exporter.contract.tamiyo import FIELDS_OF_HEAD, HeadUpdatePayload
from esper_exporter.contract.vocabulary import AUX_HEADS, CHOICES_OF_HEAD, CHOSEN_IN, HEADS
from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.state.head_state import HEAD_VIEW
from esper_exporter.state.latches import Latches
from esper_exporter.state.snapshot_import import read_snapshot
from support.pages import value
from support.states import NOON, emitted, event, started, state_after, update

WORDS = {"gradient_state": "finite"}


def heads_after(**fields: Any) -> dict[str, HeadUpdatePayload]:
    run = state_after(started(), update(**fields))
    assert run.update is not None
    return run.update.heads


@pytest.mark.parametrize(
    ("head", "field"), [(head, field) for head, names in FIELDS_OF_HEAD.items() for field in names]
)
def test_each_flat_field_is_that_of_its_head(head: str, field: str) -> None:
    reported = WORDS.get(field, 0.25)
    found = heads_after(**{f"head_{head}_{field}": reported})
    assert found == {head: HeadUpdatePayload(**{field: reported})}


def test_every_head_of_the_vocabulary_has_flat_fields() -> None:
    assert tuple(FIELDS_OF_HEAD) == (*HEADS, *AUX_HEADS)


def test_a_head_of_which_nothing_was_reported_is_not_there() -> None:
    assert heads_after() == {}


def test_a_nan_is_a_report() -> None:
    assert math.isnan(heads_after(head_op_kl=math.nan)["op"].kl or 0.0)


def test_a_flat_field_comes_before_the_same_head_by_name() -> None:
    by_name = {"op": {"kl": 0.5, "entropy": 0.5}, "mine": {"kl": 0.125}}
    found = heads_after(head_op_kl=0.25, head_updates=by_name)
    assert found == {"op": HeadUpdatePayload(kl=0.25), "mine": HeadUpdatePayload(kl=0.125)}


def test_the_schema_s_fields_read_the_mapping_and_nothing_else() -> None:
    tamiyo = state_after(started(), update(head_op_grad_norm=2.0)).snapshot.tamiyo
    shown = {name: value for name in HEAD_VIEW if (value := getattr(tamiyo, name)) is not None}
    assert shown == {"head_op_grad_norm": 2.0}
    with pytest.raises(AttributeError):
        tamiyo.head_op_grad_norm = 1.0  # type: ignore[attr-defined]


def test_the_norm_before_is_that_of_the_update_before() -> None:
    first, second = update(1.0, head_op_grad_norm=2.0), update(2.0, head_op_grad_norm=3.0)
    heads = state_after(started(), first, second).snapshot.tamiyo.heads
    assert (heads["op"].grad_norm, heads["op"].grad_norm_prev) == (3.0, 2.0)
    gap = state_after(started(), first, update(2.0), update(3.0, head_op_grad_norm=3.0))
    assert gap.snapshot.tamiyo.heads["op"].grad_norm_prev is None


@pytest.mark.parametrize(
    ("reported", "share"),
    [
        ({"op": 0.5}, {"op": 0.5}),
        ({"op": 1.0}, {"op": 1.0}),
        ({"op": math.log(6), "style": math.log(2)}, {"op": 1.0, "style": 0.5}),
        ({"op": 1.25}, {"op": 1.25 / math.log(6)}),
    ],
)
def test_entropies_are_shares_from_either_scale(
    reported: dict[str, float], share: dict[str, float]
) -> None:
    fields = {f"head_{head}_entropy": value for head, value in reported.items()}
    heads = state_after(started(), update(**fields)).snapshot.tamiyo.heads
    assert {head: state.entropy for head, state in heads.items()} == pytest.approx(share)


def test_the_norms_of_a_policy_s_own_head_are_a_histogram_too() -> None:
    mine = {"action_heads": ["mine"], "head_updates": {"mine": {"grad_norm": 0.5}}}
    page = emitted(started(), update(**mine), update(2.0, **mine)).render().decode()
    assert value(page, "esper_tamiyo_head_update_grad_norm_count", head="mine") == 2
    assert value(page, "esper_tamiyo_head_update_grad_norm_sum", head="mine") == 1.0


def test_a_slot_head_without_a_choice_has_no_share() -> None:
    fields = {"head_op_entropy": 1.5, "head_slot_entropy": 0.0}
    heads = state_after(started(slot_ids=["r0c0"]), update(**fields)).snapshot.tamiyo.heads
    assert heads["slot"].entropy is None


def test_the_scale_of_a_policy_s_own_head_says_nothing_of_tamiyo_s() -> None:
    mine = {"action_heads": ["op", "mine"], "head_updates": {"mine": {"entropy": 5.0}}}
    heads = state_after(started(), update(head_op_entropy=0.5, **mine)).snapshot.tamiyo.heads
    assert (heads["op"].entropy, heads["mine"].entropy) == (0.5, 5.0)


@pytest.mark.parametrize("order", [("curve", "alpha_curve"), ("alpha_curve", "curve")])
@pytest.mark.parametrize("up", ["curve", "alpha_curve"])
def test_a_flag_that_is_up_under_either_spelling_is_up(order: tuple[str, str], up: str) -> None:
    flags = {name: name == up for name in order}
    run = state_after(started(), update(head_nan_detected=flags))
    assert list(run.latches.lit_heads()) == [("alpha_curve", "nan")]


def test_a_foreign_snapshot_s_heads_are_read_from_its_flat_fields() -> None:
    told = {"head_op_entropy": 0.5, "head_op_ratio_max": "x", "head_q_gradient_state": "missing"}
    found = read_snapshot({"tamiyo": told}, None)
    assert found.snapshot.tamiyo.heads["op"].entropy == 0.5
    assert found.snapshot.tamiyo.heads["op"].ratio_max is None
    assert found.snapshot.tamiyo.heads["q"].gradient_state == "missing"
    assert set(found.snapshot.tamiyo.heads) == {"op", "q"}
    assert "head_op_ratio_max" in found.ignored


def test_a_foreign_decision_s_choices_are_by_head() -> None:
    decision = SimpleNamespace(chosen_action="WAIT", chosen_curve="COSINE", curve_confidence=0.75)
    found = read_snapshot({"tamiyo": {"recent_decisions": [decision]}}, None)
    (kept,) = found.snapshot.tamiyo.recent_decisions
    assert kept.choices == {"alpha_curve": "COSINE"}
    assert kept.confidences == {"alpha_curve": 0.75}


@pytest.mark.parametrize(
    ("head", "carried", "choice"),
    [
        ("slot", "r0c1", "r0c1"),
        ("tempo", 1, CHOICES_OF_HEAD["tempo"][1]),
        ("tempo", 99, "other"),
        ("alpha_target", 0.7, "SEVENTY"),
        ("alpha_target", 0.6, "other"),
        ("alpha_curve", "COSINE", "COSINE"),
    ],
)
def test_a_decision_s_choice_is_spelled_as_in_the_vocabulary(
    head: str, carried: Any, choice: str
) -> None:
    data = {"kind": "last_action", "env_id": 0, "action_name": "WAIT", "action_confidence": 0.5}
    decided = event("ANALYTICS_SNAPSHOT", data | {CHOSEN_IN[head]: carried})
    (kept,) = state_after(started(), decided).snapshot.tamiyo.recent_decisions
    assert kept.choices == {head: choice}


def test_a_decision_may_report_some_heads_only() -> None:
    data = {"kind": "last_action", "env_id": 0, "action_name": "WAIT", "action_confidence": 0.5}
    telemetry = {"op_confidence": 0.5, "curve_confidence": 0.25, "slot_confidence": "x"}
    decided = event("ANALYTICS_SNAPSHOT", data | {"head_telemetry": telemetry})
    (kept,) = state_after(started(), decided).snapshot.tamiyo.recent_decisions
    assert kept.confidences == {"op": 0.5, "alpha_curve": 0.25}


def test_what_an_earlier_process_counted_is_added_and_its_first_time_stays() -> None:
    mine, earlier = Latches(), Latches()
    earlier.light_head("op", "nan", NOON, 0, 3)
    earlier.light_head("op", "nan", NOON, 1, 4)
    mine.light_head("op", "nan", NOON + timedelta(minutes=1), 0, 9)
    mine.changed = False
    mine.add(earlier)
    latch = mine.heads["op", "nan"]
    assert (latch.updates, latch.first, latch.first_update) == (3, NOON, 3)
    assert latch.last == NOON + timedelta(minutes=1)
    assert mine.changed and mine.lit() == 1


def test_every_unit_of_a_name_is_said_as_the_unit() -> None:
    units = {metric.name.removesuffix("_total").rsplit("_", 1)[-1]: metric for metric in
             catalogue().metrics if metric.unit}  # fmt: skip
    assert {word: metric.unit for word, metric in units.items()} == {word: word for word in units}
    assert {"seconds", "bytes", "ratio", "nats", "celsius", "watts", "hertz"} <= units.keys()


def test_the_norms_of_the_critic_are_counted_whatever_the_policy_s_heads_are() -> None:
    own = {"mine": {"grad_norm": 2.0}}
    reported = update(action_heads=["mine"], head_updates=own, head_value_grad_norm=1.0)
    page = emitted(started(), reported).render().decode()
    for head in ("mine", "value"):
        assert value(page, "esper_tamiyo_head_update_grad_norm_count", head=head) == 1
