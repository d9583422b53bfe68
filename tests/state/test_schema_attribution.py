"""Shapley values and counterfactual matrices: what each seed is worth."""

from __future__ import annotations

import pytest

from esper_exporter.state.attribution import (
    CounterfactualConfig,
    CounterfactualSnapshot,
    ShapleyEstimate,
    ShapleySnapshot,
)


def matrix(**accuracies: float) -> CounterfactualSnapshot:
    """A matrix over slots a, b, c from accuracies named by the seeds that are on ("off": none)."""
    return CounterfactualSnapshot(
        ("a", "b", "c"),
        [
            CounterfactualConfig(tuple(slot in on.replace("off", "") for slot in "abc"), accuracy)
            for on, accuracy in accuracies.items()
        ],
    )


FULL = matrix(off=50.0, a=55.0, b=52.0, c=49.0, ab=60.0, ac=54.0, bc=51.0, abc=63.0)


def test_baseline_and_combined_accuracy_are_those_with_no_seed_and_with_all() -> None:
    assert (FULL.baseline_accuracy, FULL.combined_accuracy) == (50.0, 63.0)


def test_an_empty_matrix_contributes_nothing() -> None:
    empty = CounterfactualSnapshot()
    assert (empty.baseline_accuracy, empty.combined_accuracy) == (0.0, 0.0)
    assert empty.individual_contributions() == {}
    assert empty.pair_contributions() == {}
    assert empty.total_synergy() == 0.0
    assert empty.strategy == "unavailable"


def test_the_accuracy_of_a_configuration_that_was_not_evaluated_is_none() -> None:
    assert FULL.get_accuracy((True, True, False)) == 60.0
    assert FULL.get_accuracy((True, True)) is None


def test_a_seed_contributes_what_it_adds_to_the_baseline_alone() -> None:
    assert FULL.individual_contributions() == {"a": 5.0, "b": 2.0, "c": -1.0}


def test_a_pair_contributes_what_the_two_add_to_the_baseline() -> None:
    assert FULL.pair_contributions() == {("a", "b"): 10.0, ("a", "c"): 4.0, ("b", "c"): 1.0}


def test_synergy_is_what_all_give_together_beyond_what_each_gives_alone() -> None:
    assert FULL.total_synergy() == 63.0 - 50.0 - (5.0 + 2.0 - 1.0)


def test_what_an_ablation_leaves_out_contributes_nothing() -> None:
    ablation = matrix(off=50.0, abc=63.0, bc=51.0)
    assert ablation.individual_contributions() == {}
    assert ablation.pair_contributions() == {("b", "c"): 1.0}


def test_of_a_configuration_that_was_evaluated_twice_the_first_counts() -> None:
    one_slot = CounterfactualSnapshot(
        ("a",),
        [
            CounterfactualConfig((False,), 10.0),
            CounterfactualConfig((True,), 18.0),
            CounterfactualConfig((True,), 99.0),
        ],
    )
    assert one_slot.combined_accuracy == 18.0
    assert one_slot.individual_contributions() == {"a": 8.0}


SHAPLEY = ShapleySnapshot(
    ("a", "b", "c"),
    {
        "a": ShapleyEstimate(1.0, 0.5, 20),
        "b": ShapleyEstimate(-3.0, 1.0, 20),
        "c": ShapleyEstimate(2.0, 0.0, 20),
    },
)


def test_slots_are_ranked_by_their_mean_contribution_the_largest_first() -> None:
    assert SHAPLEY.ranked_slots() == [("c", 2.0), ("a", 1.0), ("b", -3.0)]


def test_the_mean_of_an_unknown_slot_is_zero() -> None:
    assert (SHAPLEY.get_mean("b"), SHAPLEY.get_mean("z")) == (-3.0, 0.0)


@pytest.mark.parametrize(
    ("mean", "std", "z", "significant"),
    [
        (1.97, 1.0, 1.96, True),
        (1.96, 1.0, 1.96, False),
        (-1.97, 1.0, 1.96, True),
        (1.97, 1.0, 2.58, False),
        (0.1, 0.0, 1.96, True),
        (-0.1, 0.0, 1.96, True),
        (0.0, 0.0, 1.96, False),
    ],
)
def test_a_contribution_is_significant_when_zero_lies_outside_its_interval(
    mean: float, std: float, z: float, significant: bool
) -> None:
    snapshot = ShapleySnapshot(("a",), {"a": ShapleyEstimate(mean, std, 20)})
    assert snapshot.get_significance("a", z) is significant


def test_an_unknown_slot_is_never_significant() -> None:
    assert not SHAPLEY.get_significance("z")
