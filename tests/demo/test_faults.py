"""Every injected fault reaches its metric; each training here is real."""

from __future__ import annotations

import pytest

from demo.small import train
from esper_exporter.contract.vocabulary import HEADS

LATCHED = "esper_tamiyo_head_nonfinite_latched"
SKIPPED = "esper_tamiyo_updates_skipped_total"
FAILED = "esper_run_failed"


@pytest.mark.parametrize(("kind", "head"), [("nan", "tempo"), ("inf", "op")])
def test_a_head_that_is_not_finite_in_one_minibatch_is_latched_and_the_update_continues(
    kind: str, head: str
) -> None:
    trained = train(f"{kind}:{head}@2")
    lit = {
        (each, of)
        for each in HEADS
        for of in ("nan", "inf")
        if trained.value(LATCHED, head=each, kind=of)
    }
    assert lit == {(head, kind)}
    assert trained.value("esper_tamiyo_head_nonfinite_updates_total", head=head, kind=kind) == 1
    first = trained.value(
        "esper_tamiyo_head_nonfinite_first_timestamp_seconds", head=head, kind=kind
    )
    began, ended = (
        trained.value(f"esper_run_{what}_timestamp_seconds") for what in ("start", "end")
    )
    assert began is not None and first is not None and ended is not None
    assert began < first < ended
    assert trained.value("esper_tamiyo_updates_total") == 3
    assert sum(trained.values(SKIPPED)) == 0
    assert [batch.carried_out for batch in trained.batches] == [True, True, True]


def test_a_head_that_is_not_finite_in_the_whole_update_is_latched_and_the_update_skipped() -> None:
    trained = train("inf:slot@2:full")
    assert trained.value(LATCHED, head="slot", kind="inf") == 1
    assert trained.value(SKIPPED, reason="nonfinite") == 1
    assert sum(trained.values(SKIPPED)) == 1
    assert trained.value("esper_tamiyo_updates_total") == 2
    assert [batch.carried_out for batch in trained.batches] == [True, False, True]


def test_the_third_skipped_update_in_a_row_ends_the_run_as_not_finite() -> None:
    trained = train("nan:op@1-4:full", updates=5, fails=FloatingPointError)
    assert trained.value(SKIPPED, reason="nonfinite") == 3
    assert trained.value(FAILED, reason="nonfinite") == 1
    assert trained.value("esper_tamiyo_head_nonfinite_updates_total", head="op", kind="nan") == 3


def test_an_exploding_gradient_is_counted_and_clipped() -> None:
    trained = train("grad-explode@2")
    assert trained.value("esper_tamiyo_gradient_explosions_total") == 1
    largest = trained.value("esper_tamiyo_grad_norm_window_max")
    clipped = trained.value("esper_tamiyo_grad_norm")
    assert largest is not None and largest > 100
    assert clipped is not None and clipped <= 0.501


def test_a_gradient_that_is_not_finite_costs_one_step_or_the_whole_update() -> None:
    trained = train("grad-nan@2")
    latch = "esper_tamiyo_nonfinite_latched"
    assert trained.value(latch, source="gradients") == 1
    assert trained.value("esper_tamiyo_updates_nonfinite_grad_norm_total") == 1
    assert sum(trained.values(SKIPPED)) == 0
    whole = train("grad-nan@2:full")
    assert whole.value(latch, source="gradients") == 1
    assert whole.value(SKIPPED, reason="nonfinite") == 1
    for healthy_after in (trained, whole):
        entropy = healthy_after.value("esper_tamiyo_head_entropy_ratio", head="op")
        assert entropy is not None and 0 < entropy <= 1


def test_a_collapsed_head_has_no_entropy_and_the_others_keep_theirs() -> None:
    trained = train("entropy-collapse:style@2")
    entropies = {
        head: trained.value("esper_tamiyo_head_choice_entropy_ratio", head=head)
        for head in ("style", "tempo")
    }
    assert entropies["style"] is not None and entropies["style"] < 0.001
    assert entropies["tempo"] is not None and entropies["tempo"] > 0.5


@pytest.mark.parametrize(("kind", "reason"), [("crash", "exception"), ("oom", "oom")])
def test_what_ends_the_process_is_the_reason_the_run_failed_for(kind: str, reason: str) -> None:
    trained = train(f"{kind}@2", fails=RuntimeError)
    assert trained.value(FAILED, reason=reason) == 1
    assert sum(trained.values(FAILED)) == 1
    assert trained.value("esper_run_finished") in (None, 0)
    assert len(trained.batches) == 1


def test_a_stall_comes_before_its_update_and_after_the_one_before() -> None:
    seen: list[int] = []
    trained = train("stall@3", stall=lambda: seen.append(len(seen)))
    assert seen == [0]
    assert len(trained.batches) == 3


def test_faults_of_several_kinds_keep_to_their_updates() -> None:
    trained = train("nan:op@1", "inf:slot@3", "grad-explode@2")
    assert trained.value(LATCHED, head="op", kind="nan") == 1
    assert trained.value(LATCHED, head="slot", kind="inf") == 1
    assert trained.value("esper_tamiyo_gradient_explosions_total") == 1
    assert trained.value("esper_tamiyo_head_nonfinite_updates_total", head="op", kind="nan") == 1
