"""Every field of a policy update equals the slow, obvious computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes import slow
from probes.loop import HEADS, Policy, Told, batch, flags, gradients, probe

CLIP = 0.2


def rows(by_head: dict[str, torch.Tensor]) -> dict[str, list[Any]]:
    return {
        head: (v.double() if v.is_floating_point() else v).flatten().tolist()
        for head, v in by_head.items()
    }


def fields_of(minibatches: list[dict[str, Any]], rollout: dict[str, Any] | None = None) -> Any:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy, clip_ratio=CLIP)
    with measured.update() as update:
        if rollout is not None:
            update.rollout(**rollout)
        for each in minibatches:
            update.minibatch(**each)
            gradients(policy)
            measured.clip_grad_norm_()
    assert sink.failures == 0
    return sink.update


def same(reported: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-5) -> None:
    for name, value in expected.items():
        assert reported[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_the_policy_s_fields(dtype: torch.dtype, masked: bool, padded: bool) -> None:
    steps = 40
    given = batch(steps, seed=7, dtype=dtype)
    everywhere = {head: torch.ones(steps, dtype=torch.bool) for head in HEADS}
    active = flags(steps, 1) if masked else everywhere
    learnable = flags(steps, 2) if masked else everywhere
    valid = torch.arange(steps) < 31 if padded else torch.ones(steps, dtype=torch.bool)
    reported = fields_of([{**given, "active": active, "learnable": learnable, "valid": valid}])
    expected = slow.policy(
        HEADS,
        rows(given["log_probs"]),
        rows(given["old_log_probs"]),
        rows(given["entropy"]),
        rows(active),
        rows(learnable),
        valid.tolist(),
        CLIP,
    )
    same(reported, expected)
    assert reported["policy_loss"] == 0.25 and reported["value_loss"] == 0.5
    assert "head_alpha_curve_entropy" not in reported  # one choice has no share of a maximum


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 30), scale=st.floats(0.0, 3.0))
def test_the_policy_s_fields_on_any_numbers(seed: int, steps: int, scale: float) -> None:
    given = batch(steps, seed=seed)
    given["log_probs"] = {
        head: given["old_log_probs"][head] + scale * (given["log_probs"][head] - old)
        for head, old in given["old_log_probs"].items()
    }
    everywhere = dict.fromkeys(HEADS, [True] * steps)
    parts = [rows(given[name]) for name in ("log_probs", "old_log_probs", "entropy")]
    expected = slow.policy(HEADS, *parts, everywhere, everywhere, [True] * steps, CLIP)
    reported = fields_of([given])
    for name in (  # a ratio within rounding of the clip range falls on either side
        *("clip_fraction", "clip_fraction_positive", "clip_fraction_negative"),
        *("trust_region_violations", *(f"head_{head}_clip_fraction" for head in HEADS)),
    ):
        expected.pop(name)
    same(reported, expected, 1e-4)


def test_two_minibatches_count_as_one_sample() -> None:
    one, two = batch(10, 1), batch(10, 2)
    both = {
        name: {head: torch.cat([one[name][head], two[name][head]]) for head in HEADS}
        for name in ("log_probs", "old_log_probs", "entropy")
    }
    losses = {"policy_loss": one["policy_loss"], "value_loss": one["value_loss"]}
    together, apart = fields_of([{**both, **losses}]), fields_of([one, two])
    names = ("kl_divergence", "ratio_std", "ratio_max", "log_prob_min", "clip_fraction")
    same(apart, {name: together[name] for name in (*names, "head_op_kl", "head_op_entropy")})


def test_an_empty_minibatch_and_one_without_valid_steps_change_nothing() -> None:
    given = batch(10, 1)
    nobody = {**batch(10, 2), "valid": torch.zeros(10, dtype=torch.bool)}
    reported, alone = fields_of([batch(0), given, nobody]), fields_of([given])
    names = [n for n in alone if n.startswith(("head_", "ratio_", "kl", "log_prob", "clip_"))]
    assert {n: reported[n] for n in names} == {n: alone[n] for n in names}
    assert reported["valid_sample_ratio"] == 0.5


def test_a_head_that_never_mattered_has_no_ratio() -> None:
    active = {head: torch.full((12,), head != "tempo") for head in HEADS}
    reported = fields_of([{**batch(), "active": active}])
    assert reported["head_tempo_active_ratio"] == 0.0
    assert "head_tempo_ratio_max" not in reported and "head_tempo_kl" not in reported
    assert reported["head_op_active_ratio"] == 1.0


def test_underflowing_log_probs_are_counted() -> None:
    given = batch()
    given["log_probs"]["slot"] = given["old_log_probs"]["slot"] = torch.full((12,), -51.0)
    reported = fields_of([given])
    assert reported["log_prob_underflow_count"] == 12
    assert reported["numerical_stability_score"] == 0.0
    assert reported["log_prob_min"] == -51.0


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 37])
def test_the_rollout_s_fields(steps: int, padded: bool) -> None:
    draw = torch.Generator().manual_seed(steps)
    names = ("values", "returns", "advantages", "raw_advantages", "td_errors")
    given: dict[str, Any] = {name: torch.randn(steps, generator=draw) for name in names}
    given["returns"] += 100.0
    actions = {head: torch.randint(0, n, (steps,), generator=draw) for head, n in HEADS.items()}
    actions["op"][: steps // 2] = 0
    kept = slice(0, steps)
    if padded:
        extra = torch.full((3,), 1e9)
        given = {name: torch.cat([v, extra]) for name, v in given.items()}
        actions = {head: torch.cat([v, v.new_zeros(3)]) for head, v in actions.items()}
        given["valid"] = torch.arange(steps + 3) < steps
    reported = fields_of([batch()], {**given, "actions": actions})
    lists = [given[name].double()[kept].tolist() for name in names]
    if steps == 1:
        assert reported["return_p50"] == lists[1][0] and reported["return_std"] == 0.0
        assert "explained_variance" not in reported and "return_skewness" not in reported
        return
    expected = slow.rollout(*lists, {head: v[kept].tolist() for head, v in actions.items()})
    same(reported, expected)
    ops = actions["op"][kept].tolist()
    assert reported["op_distribution"]["WAIT"] == pytest.approx(ops.count(0) / steps)
    assert sum(reported["op_distribution"].values()) == pytest.approx(1.0)


def test_an_empty_rollout_reports_nothing() -> None:
    reported = fields_of([batch()], {"values": torch.empty(0), "returns": torch.empty(0)})
    assert "value_mean" not in reported
