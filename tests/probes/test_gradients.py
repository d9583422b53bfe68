"""Gradients: clipped as torch clips, and reported from the norms that clipping reads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from probes.loop import Policy, Told, batch, gradients, probe

LAYERS = ("body", "heads.op", "heads.slot", "heads.tempo", "heads.alpha_curve", "critic")


def update_with(sizes: list[float], **options: Any) -> tuple[dict[str, Any], Policy, list[Any]]:
    """An update whose optimizer steps have random gradients of these sizes, and those."""
    sink, policy = Told(), Policy()
    measured = probe(sink, policy, **options)
    seen = []
    with measured.update() as update:
        for number, size in enumerate(sizes):
            update.minibatch(**batch())
            gradients(policy, size, seed=number)
            before = {n: p.grad.double().clone() for n, p in policy.named_parameters()}  # type: ignore[union-attr]
            total = measured.clip_grad_norm_()
            seen.append((before, total))
    assert sink.failures == 0
    return sink.update, policy, seen


def norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(v) ** 2 for t in tensors for v in t.flatten()))


def test_it_clips_exactly_as_torch_does() -> None:
    ours, theirs = Policy(), Policy()
    for size in (0.001, 1.0, 50.0):
        gradients(ours, size)
        gradients(theirs, size)
        assert torch.equal(
            probe(Told(), ours).clip_grad_norm_(),
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.5),
        )
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert one.grad is not None and other.grad is not None
            assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("norm_type", [1.0, 3.0, math.inf])
def test_other_norms_clip_as_in_torch(norm_type: float) -> None:
    ours, theirs = Policy(), Policy()
    gradients(ours)
    gradients(theirs)
    one = probe(Told(), ours).clip_grad_norm_(ours.parameters(), 0.1, norm_type)
    other = nn.utils.clip_grad_norm_(theirs.parameters(), 0.1, norm_type)
    torch.testing.assert_close(one, other)


def test_the_norms_before_and_after_clipping_are_reported() -> None:
    reported, _, _ = update_with([40.0], max_grad_norm=1.0)
    assert reported["pre_clip_grad_norm"] > 100.0
    assert reported["grad_norm"] == pytest.approx(1.0, abs=1e-3)
    assert reported["gradient_utilization"] == pytest.approx(1.0, abs=1e-3)


def test_every_field_of_the_gradient_flow() -> None:
    reported, policy, seen = update_with([0.01, 3.0], max_grad_norm=1.0, every=1)
    totals = [norm(list(before.values())) for before, _ in seen]
    worst = seen[totals.index(max(totals))][0]
    largest = {name: norm([worst[name]]) for name, _ in policy.named_parameters()}
    assert reported["grad_norm_step"] == totals.index(max(totals)) + 1
    assert reported["pre_clip_grad_norm"] == pytest.approx(max(totals), rel=1e-5)
    mean = sum(totals) / 2
    deviation = math.sqrt(sum((total - mean) ** 2 for total in totals) / 2)
    assert reported["gradient_cv"] == pytest.approx(deviation / mean, rel=1e-5)
    assert reported["grad_clip_fraction"] == 0.5
    layers = {
        layer: math.hypot(largest[f"{layer}.weight"], largest[f"{layer}.bias"]) for layer in LAYERS
    }
    assert reported["grad_norm_per_layer"] == pytest.approx(layers, rel=1e-5)
    assert reported["grad_norm_ratio"] == pytest.approx(max(layers.values()) / min(layers.values()))
    for head in ("op", "slot", "tempo", "alpha_curve"):
        assert reported[f"head_{head}_grad_norm"] == pytest.approx(
            layers[f"heads.{head}"], rel=1e-5
        )
        assert reported[f"head_{head}_gradient_state"] == "finite"
    assert reported["head_value_grad_norm"] == pytest.approx(layers["critic"], rel=1e-5)
    assert reported["exploding_layers"] == sum(value > 100 for value in largest.values())
    assert reported["dead_layers"] == 0
    assert reported["grad_zero_fraction"] == 0.0
    assert reported["nan_grad_count"] == reported["inf_grad_count"] == 0
    assert reported["grad_nan_layers"] == ()


def test_dead_layers_and_the_share_of_zeros() -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy)
    with measured.update() as update:
        update.minibatch(**batch())
        gradients(policy)
        for parameter in policy.heads["op"].parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()
        policy.heads["slot"].zero_grad()
        measured.clip_grad_norm_()
    reported = sink.update
    entries = sum(p.grad.numel() for p in policy.parameters() if p.grad is not None)
    assert reported["dead_layers"] == 2
    assert reported["layer_gradient_health"]["heads.op.weight"] == 0.0
    assert "heads.slot.weight" not in reported["layer_gradient_health"]
    assert reported["head_slot_gradient_state"] == "missing"
    assert reported["grad_zero_fraction"] == pytest.approx((16 * 6 + 6) / entries)


def test_what_costs_more_is_measured_every_few_updates_and_absent_between() -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy, every=3)
    changes = []
    for _ in range(4):
        before = [p.detach().double().clone() for p in policy.parameters()]
        with measured.update() as update:
            update.minibatch(**batch())
            gradients(policy)
            measured.clip_grad_norm_()
            torch.optim.SGD(policy.parameters(), 0.1).step()
        pairs = zip(policy.parameters(), before, strict=True)
        changes.append(norm([p.detach().double() - old for p, old in pairs]))
    reported = [each.get("policy_update_magnitude") for each in sink.of("TAMIYO_POLICY_UPDATE")]
    assert reported[1] is None and reported[2] is None
    assert [reported[0], reported[3]] == pytest.approx([changes[0], changes[3]], rel=1e-4)
    zeros = ["grad_zero_fraction" in each for each in sink.of("TAMIYO_POLICY_UPDATE")]
    assert zeros == [True, False, False, True]


@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_a_nonfinite_gradient_is_reported_at_once_with_its_layer(kind: str) -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy)
    with measured.update() as update:
        update.minibatch(**batch())
        gradients(policy)
        weight = policy.heads["tempo"].weight
        assert isinstance(weight, nn.Parameter) and weight.grad is not None
        weight.grad[0, 0] = float(kind)
        measured.clip_grad_norm_()
        word = "NaN" if kind == "nan" else "Inf"
        at_once = f"Sources: gradients: {word}; gradients[heads.tempo]: {word}"
        assert sink.anomalies == [("nonfinite_detected", at_once)]
    reported = sink.update
    assert reported["grad_nan_layers"] == ("heads.tempo",)
    assert reported[f"{kind}_grad_count"] == 1
    assert reported["head_tempo_gradient_state"] == "nonfinite"
    assert reported["head_op_gradient_state"] == "finite"
    assert reported["numerical_stability_score"] == 0.0


def test_a_norm_beyond_float32_is_no_fault() -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy)
    with measured.update() as update:
        update.minibatch(**batch())
        gradients(policy, 1e-3)
        assert policy.body.weight.grad is not None
        policy.body.weight.grad[0, 0] = 1e25
        assert torch.isinf(measured.clip_grad_norm_())
    assert sink.anomalies == []
    assert sink.update["pre_clip_grad_norm"] == pytest.approx(1e25)
    assert sink.update["inf_grad_count"] == 0


def test_it_raises_for_a_nonfinite_norm_only_if_asked() -> None:
    policy = Policy()
    gradients(policy, math.inf)
    with pytest.raises(RuntimeError, match="not finite"):
        probe(Told(), policy).clip_grad_norm_(error_if_nonfinite=True)


def test_half_precision_gradients_are_measured() -> None:
    policy = Policy().to(torch.bfloat16)
    sink = Told()
    measured = probe(sink, policy)
    with measured.update() as update:
        update.minibatch(**batch(dtype=torch.bfloat16))
        for parameter in policy.parameters():
            parameter.grad = torch.randn_like(parameter)
        exact = norm([p.grad for p in policy.parameters() if p.grad is not None])
        measured.clip_grad_norm_()
    assert sink.failures == 0
    assert sink.update["pre_clip_grad_norm"] == pytest.approx(exact, rel=0.02)


def test_without_gradients_there_is_nothing_to_clip() -> None:
    policy = Policy()
    policy.zero_grad()
    assert float(probe(Told(), policy).clip_grad_norm_()) == 0.0
