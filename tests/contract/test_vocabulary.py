"""The fixed words: actions without their factors, heads under one name, their entropies."""

from __future__ import annotations

import math

import pytest

from esper_exporter.contract.vocabulary import (
    BLUEPRINTS,
    HEAD_ENTROPY_COEFFICIENTS,
    HEADS,
    OPS,
    canonical_head,
    head_max_entropy,
    normalize_action,
)


@pytest.mark.parametrize(
    ("reported", "op"),
    [
        ("GERMINATE_CONV_LIGHT", "GERMINATE"),
        ("FOSSILIZE_R0C0", "FOSSILIZE"),
        ("SET_ALPHA_TARGET_HALF", "SET_ALPHA_TARGET"),
        ("WAITING", "WAITING"),
        ("UNKNOWN", "UNKNOWN"),
        ("", ""),
        *((op, op) for op in OPS),
    ],
)
def test_a_factored_action_is_counted_as_its_operation(reported: str, op: str) -> None:
    assert normalize_action(reported) == op


@pytest.mark.parametrize(
    ("head", "choices"),
    [
        ("op", 6),
        ("blueprint", len(BLUEPRINTS)),
        ("style", 4),
        ("tempo", 3),
        ("alpha_target", 3),
        ("alpha_speed", 4),
        ("alpha_curve", 5),
        ("slot", 9),
    ],
)
def test_the_maximum_entropy_is_the_logarithm_of_the_choices(head: str, choices: int) -> None:
    assert head_max_entropy(head, n_slots=9) == math.log(choices)


@pytest.mark.parametrize("n_slots", [0, 1])
def test_a_slot_head_without_a_choice_has_no_entropy(n_slots: int) -> None:
    assert head_max_entropy("slot", n_slots) == 0.0


def test_the_curve_head_has_one_name() -> None:
    assert canonical_head("curve") == "alpha_curve"
    assert [canonical_head(head) for head in HEADS] == list(HEADS)


def test_the_policy_s_entropy_weighs_its_heads() -> None:
    apart = {"blueprint": 1.3, "tempo": 1.3, "style": 1.2}
    apart |= {"alpha_target": 1.2, "alpha_speed": 1.2, "alpha_curve": 1.2}
    assert {h: w for h, w in HEAD_ENTROPY_COEFFICIENTS.items() if w != 1.0} == apart
    assert list(HEAD_ENTROPY_COEFFICIENTS) == list(HEADS)
