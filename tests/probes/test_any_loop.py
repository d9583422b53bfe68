"""The probe in loops as people write them: any clipping, any heads, with or without a critic."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_ as imported_by_name

from esper_exporter import Exporter, PolicyProbe
from esper_exporter.probes.torch import loop_hooks
from probes.loop import HEADS, INF, LATCHED, NAN, Policy, Told, batch, gradients, page, probe
from support.pages import value

LIMIT = 0.5
Clip = Callable[[Policy, PolicyProbe], object]


def actor_and_critic(policy: Policy) -> tuple[list[Tensor], list[Tensor]]:
    critic = list(policy.critic.parameters())
    theirs = {id(p) for p in critic}
    return [p for p in policy.parameters() if id(p) not in theirs], critic


def split(policy: Policy, _: PolicyProbe) -> None:
    for part in actor_and_critic(policy):
        nn.utils.clip_grad_norm_(part, LIMIT)


def split_by_probe(policy: Policy, measured: PolicyProbe) -> None:
    for part in actor_and_critic(policy):
        measured.clip_grad_norm_(part, LIMIT)


CLIPS: dict[str, Clip] = {
    "the probe's": lambda _, measured: measured.clip_grad_norm_(),
    "torch's": lambda policy, _: nn.utils.clip_grad_norm_(policy.parameters(), LIMIT),
    "torch's, imported by name": lambda policy, _: imported_by_name(policy.parameters(), LIMIT),
    "reversed": lambda policy, measured: measured.clip_grad_norm_(
        list(policy.parameters())[::-1], LIMIT
    ),
    "split": split,
    "split by the probe": split_by_probe,
    "none": lambda *_: None,
}


def norm(tensors: Any) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("frozen", [False, True])
def test_however_it_clips_the_update_is_measured_with_its_losses(clip: str, frozen: bool) -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy, max_grad_norm=LIMIT)
    if frozen:
        policy.heads["slot"].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], 0.1)
    wholes, layer_norms = [], []
    with measured.update() as update:
        for number in range(3):
            update.minibatch(**{**batch(), "policy_loss": 0.25, "value_loss": 0.5})
            gradients(policy, size=1.0 + number, seed=number)
            for parameter in policy.heads["slot"].parameters():
                if frozen:
                    parameter.grad = None
            wholes.append(norm(p.grad for p in policy.parameters() if p.grad is not None))
            layer_norms.append(norm(p.grad for p in policy.body.parameters()))
            CLIPS[clip](policy, measured)
            optimizer.step()
    reported = sink.update
    assert sink.failures == 0 and sink.anomalies == []
    assert reported["policy_loss"] == 0.25 and reported["value_loss"] == 0.5
    assert reported["pre_clip_grad_norm"] == pytest.approx(max(wholes), rel=1e-6)
    assert reported["grad_norm_step"] == 3
    assert reported["grad_norm_per_layer"]["body"] == pytest.approx(layer_norms[-1], rel=1e-6)
    after = max(wholes) if clip == "none" else LIMIT * (math.sqrt(2) if "split" in clip else 1)
    assert reported["grad_norm"] == pytest.approx(after, rel=1e-4)
    assert ("grad_clip_fraction" in reported) == (clip != "none")
    state = reported["head_slot_gradient_state"]
    assert state == ("missing" if frozen else "finite")
    assert reported["not_measured"] == ()


def test_a_norm_at_the_limit_that_only_the_optimizer_saw_may_be_clipped() -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy, max_grad_norm=LIMIT)
    optimizer = torch.optim.SGD(policy.parameters(), 0.1)
    with measured.update():
        gradients(policy)
        whole = norm(p.grad for p in policy.parameters())
        for parameter in policy.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(LIMIT / whole)
        optimizer.step()
    assert "pre_clip_grad_norm" not in sink.update
    assert sink.update["grad_norm"] == pytest.approx(LIMIT, rel=1e-5)


def test_norms_of_heads_and_layers_are_those_of_one_step() -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy)
    with measured.update():
        for large in ("op", "slot"):
            for parameter in policy.parameters():
                parameter.grad = torch.zeros_like(parameter)
            weight = policy.heads[large].weight
            weight.grad = torch.ones_like(weight)
            measured.clip_grad_norm_()
    reported = sink.update
    heads = [reported[f"head_{head}_grad_norm"] for head in HEADS]
    assert math.hypot(*heads) == pytest.approx(reported["pre_clip_grad_norm"])
    assert reported["head_slot_grad_norm"] == 0.0 and reported["grad_norm_step"] == 1


def test_a_head_that_is_missing_costs_its_own_fields_only() -> None:
    sink, policy = Told(), Policy()
    given = batch()
    for part in ("log_probs", "old_log_probs", "entropy"):
        del given[part]["tempo"]
    measured = probe(sink, policy)
    with measured.update() as update:
        update.minibatch(**given)
    assert sink.failures == 0
    assert sink.update["head_op_kl"] is not None
    assert "head_tempo_kl" not in sink.update
    assert "kl_divergence" in sink.update["not_measured"]


def test_without_a_critic_there_is_no_value_loss(exporter: Exporter) -> None:
    measured = probe(exporter)
    given = batch()
    del given["value_loss"]
    with measured.update() as update:
        update.rollout(advantages=torch.randn(12))
        update.minibatch(**given)
    shown = page(exporter)
    assert value(shown, "esper_tamiyo_updates_total") == 1
    assert value(shown, "esper_tamiyo_policy_loss") is not None
    assert value(shown, "esper_tamiyo_value_loss") is None
    assert value(shown, "esper_tamiyo_advantage_std") is not None
    assert value(shown, "esper_tamiyo_value_mean") is None


@pytest.mark.parametrize("what", ["returns", "advantages", "values", "td_errors"])
@pytest.mark.parametrize(("number", "kind"), [(NAN, "NaN"), (INF, "Inf"), (-INF, "Inf")])
def test_a_rollout_that_is_not_finite_lights_its_source(
    exporter: Exporter, what: str, number: float, kind: str
) -> None:
    given = {name: torch.randn(12) for name in ("values", "returns", "advantages", "td_errors")}
    given[what][3] = number
    sink = Told()
    for one in (sink, exporter):
        with probe(one).update() as update:
            update.rollout(**given)
            if one is exporter:
                shown = page(exporter)
                assert value(shown, "esper_tamiyo_nonfinite_latched", source=what) == 1
                others = {"returns", "advantages", "values", "td_errors"} - {what}
                for other in others:
                    assert value(shown, "esper_tamiyo_nonfinite_latched", source=other) == 0
    assert sink.anomalies == [("nonfinite_detected", f"Sources: {what}: {kind}")]


@pytest.mark.parametrize(("number", "kind"), [(INF, "inf"), (NAN, "nan")])
def test_logits_tell_infinite_from_nan(exporter: Exporter, number: float, kind: str) -> None:
    logits = torch.randn(12, 6)
    logits[0, 1] = -INF  # a choice that is not legal
    logits[4, 2] = number
    given = batch()
    given["log_probs"]["op"] = torch.log_softmax(logits, -1)[:, 0]
    with probe(exporter).update() as update:
        update.minibatch(**given, logits={"op": logits, "slot": torch.randn(12, 3)})
    shown = page(exporter)
    assert value(shown, LATCHED, head="op", kind=kind) == 1
    assert value(shown, LATCHED, head="op", kind="nan" if kind == "inf" else "inf") == 0
    assert value(shown, LATCHED, head="slot", kind="inf") == 0


def test_a_continuous_head_has_an_entropy_in_nats_and_does_not_collapse(
    exporter: Exporter,
) -> None:
    class Torque(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Linear(3, 1)

    measured = PolicyProbe(Torque(), exporter, heads={"torque": None, "gear": 3})
    normal = torch.distributions.Normal(torch.zeros(8), 0.1)
    gears = torch.distributions.Categorical(logits=torch.zeros(8, 3))
    with measured.update() as update:
        update.rollout(actions={"torque": torch.randn(8), "gear": torch.arange(8) % 3})
        update.minibatch(
            log_probs={"torque": torch.randn(8), "gear": -torch.ones(8)},
            old_log_probs={"torque": torch.randn(8), "gear": -torch.ones(8)},
            entropy={"torque": normal.entropy(), "gear": gears.entropy()},
            policy_loss=1.0,
        )
    shown = page(exporter)
    nats = float(normal.entropy()[0])
    assert nats < 0
    assert value(shown, "esper_tamiyo_head_entropy_nats", head="torque") == pytest.approx(nats)
    assert value(shown, "esper_tamiyo_head_entropy_ratio", head="torque") is None
    assert value(shown, "esper_tamiyo_head_state", head="torque", state="collapsed") in (None, 0)
    whole = nats + math.log(3)
    assert value(shown, "esper_tamiyo_policy_entropy_nats") == pytest.approx(whole)
    assert value(shown, "esper_tamiyo_action_diversity") == 3


@pytest.mark.parametrize("kind", [NAN, INF])
def test_weights_that_are_not_finite_name_their_layer(exporter: Exporter, kind: float) -> None:
    policy = Policy()
    measured = probe(exporter, policy)
    with measured.update(batch=7), torch.no_grad():
        policy.heads["tempo"].weight[0, 0] = kind
    shown, word = page(exporter), "nan" if math.isnan(kind) else "inf"
    name = "esper_tamiyo_layer_nonfinite"
    where = {"layer": "heads.tempo", "source": "weights", "kind": word}
    assert value(shown, f"{name}_latched", **where) == 1
    assert value(shown, f"{name}_first_update", **where) == 7
    assert value(shown, "esper_tamiyo_nonfinite_latched", source="weights") == 1


@pytest.mark.parametrize(
    "more", [{"foreach": False}, {"foreach": True}, {"norm_type": "inf"}, {"norm_type": 1}]
)
@pytest.mark.parametrize("mixed", [False, True])
def test_it_takes_what_torch_takes_and_clips_to_the_bit(more: dict[str, Any], mixed: bool) -> None:
    ours, theirs = Policy(), Policy()
    for policy in (ours, theirs):
        if mixed:
            policy.body.to(torch.bfloat16)
            policy.heads["op"].double()
        gradients(policy, 3.0)
    measured = probe(Told(), ours)
    with measured.update():
        one = measured.clip_grad_norm_(ours.parameters(), 0.1, **more)
    other = nn.utils.clip_grad_norm_(theirs.parameters(), 0.1, **more)
    assert torch.equal(one, other)
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, yours.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(12))
def test_mixed_types_clip_as_in_torch(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    kinds = (torch.float32, torch.bfloat16, torch.float16)

    def parameters() -> list[nn.Parameter]:
        made = []
        for place in range(9):
            kind = kinds[(place * seed) % 3]
            made.append(nn.Parameter(torch.ones(7 + place, dtype=kind)))
        return made

    ours, theirs = parameters(), parameters()
    for mine, yours in zip(ours, theirs, strict=True):
        mine.grad = torch.randn(mine.shape, generator=draw).to(mine.dtype)
        yours.grad = mine.grad.clone()
    policy = nn.ParameterList(ours)
    PolicyProbe(policy, Told(), heads={"op": 2}).clip_grad_norm_(max_norm=0.3)
    nn.utils.clip_grad_norm_(theirs, 0.3)
    for mine, yours in zip(ours, theirs, strict=True):
        assert torch.equal(mine.grad, yours.grad)  # type: ignore[arg-type]


def test_compiled_layers_keep_their_names() -> None:
    sink, policy = Told(), Policy()
    policy.body = torch.compile(policy.body, backend="eager")
    whole = torch.compile(policy, backend="eager")
    measured = PolicyProbe(whole, sink, heads=HEADS)
    with measured.update():
        gradients(policy)
        measured.clip_grad_norm_()
    layers = sink.update["grad_norm_per_layer"]
    assert "body" in layers and not [name for name in layers if "_orig_mod" in name]


def test_begin_and_end_stand_in_for_with() -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy)
    for number in (4, 4, 5):
        update = measured.update(batch=number).begin()
        update.minibatch(**batch())
        gradients(policy)
        measured.clip_grad_norm_()
        update.end()
        update.end()
    reported = [(each["batch"], each["ppo_update_idx"]) for each in sink.of("TAMIYO_POLICY_UPDATE")]
    assert reported == [(4, 1), (4, 2), (5, 1)]


@pytest.mark.parametrize("how", ["raised", "no_event"])
def test_an_update_that_is_not_completed_says_why(exporter: Exporter, how: str) -> None:
    measured = probe(exporter)
    if how == "raised":
        with pytest.raises(ZeroDivisionError), measured.update():
            raise ZeroDivisionError
    else:
        measured.update().begin()
        with measured.update():
            pass
    shown = page(exporter)
    assert value(shown, "esper_tamiyo_updates_incomplete_total", reason=how) == 1
    assert value(shown, "esper_tamiyo_updates_total") == (how == "no_event")


def test_one_minibatch_in_some_is_measured_and_all_are_searched() -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy, sample_minibatches=3)
    with measured.update() as update:
        for number in range(6):
            given = batch(seed=number)
            if number == 4:
                given["log_probs"]["slot"][0] = NAN
            update.minibatch(**given)
    assert sink.update["usable_actor_timesteps"] == 24, "two of six minibatches of 12 steps"
    assert ("nonfinite_detected", "Sources: log_probs[slot]: NaN") in sink.anomalies


def test_the_weights_are_held_once() -> None:
    """Not the weights' change as well: of a large policy that would be its memory again."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(128, 128, bias=False) for _ in range(20))

    policy = Large()
    measured = PolicyProbe(policy, Told(), heads={"op": 2}, every=1)
    weights = sum(p.numel() * 4 for p in policy.parameters())
    with torch.profiler.profile(profile_memory=True) as profiled, measured.update():
        pass
    held, most = 0, 0
    for event in sorted(profiled.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert most < 1.3 * weights


def test_the_hooks_are_gone_after_the_update_and_others_threads_pass_through() -> None:
    clip_grad = __import__("torch.nn.utils.clip_grad", fromlist=["clip_grad"])
    before = clip_grad._clip_grads_with_norm_, nn.utils.clip_grad_norm_
    sink, policy = Told(), Policy()
    measured = probe(sink, policy)
    other = Policy()
    gradients(other)
    with measured.update():
        thread = threading.Thread(
            target=lambda: nn.utils.clip_grad_norm_(other.parameters(), LIMIT)
        )
        thread.start()
        thread.join()
    assert (clip_grad._clip_grads_with_norm_, nn.utils.clip_grad_norm_) == before
    assert loop_hooks._open == 0
    assert "grad_norm" in sink.update["not_measured"]


def test_the_explosion_threshold_follows_what_the_trainer_clips_to(exporter: Exporter) -> None:
    policy = Policy()
    measured = probe(exporter, policy, max_grad_norm=0.5)
    for size in (1.0, 10.0):
        with measured.update():
            gradients(policy, size)
            whole = norm(p.grad for p in policy.parameters())
            assert (whole > 50.0) == (size == 10.0) and whole > 10.0
            measured.clip_grad_norm_()
    shown = page(exporter)
    assert value(shown, "esper_tamiyo_gradient_explosions_total") == 1
    assert value(shown, "esper_tamiyo_explosion_grad_norm") == 50.0


@pytest.mark.parametrize("clips", [False, True])
@pytest.mark.parametrize("by_name", [False, True])
def test_a_step_with_a_closure_is_measured_after_it(clips: bool, by_name: bool) -> None:
    """As Lightning steps. Before the closure there are gradients too: of the step before, or of
    the batches that are accumulated."""
    sink, policy = Told(), Policy()
    measured = probe(sink, policy)
    optimizer = torch.optim.SGD(policy.parameters(), 0.1)
    used: list[float] = []

    def closure() -> float:
        gradients(policy)
        used.append(norm([p.grad for p in policy.parameters() if p.grad is not None]))
        if clips:
            nn.utils.clip_grad_norm_(policy.parameters(), LIMIT)
        return 1.0

    for number in (1, 2):
        gradients(policy)
        with measured.update():
            _ = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
        assert sink.update["grad_norm_step"] == 1 and "gradient_cv" not in sink.update
        shown = sink.update["pre_clip_grad_norm" if clips else "grad_norm"]
        assert shown == pytest.approx(used[number - 1], rel=1e-6)
    assert len(used) == 2 and sink.failures == 0
