"""A policy whose heads are not Tamiyo's: they have metrics and latches, and hers have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from esper_exporter import Exporter, PolicyProbe
from probes.loop import LATCHED, page
from support.pages import samples, value

STEPS = 32
CHOICES = {"move": 5, "shoot": 2, "op": 6, "noop": 1}


def heads_of(shown: str, name: str) -> set[str]:
    return {dict(labels)["head"] for found, labels in samples(shown) if found == name}


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.heads = nn.ModuleDict({head: nn.Linear(8, n) for head, n in CHOICES.items()})
        self.critic = nn.Linear(8, 1)


def own_probe(exporter: Exporter, policy: Policy | None = None) -> PolicyProbe:
    policy = policy or Policy()
    modules = {**dict(policy.heads.items()), "value": policy.critic}
    return PolicyProbe(policy, exporter, heads=CHOICES, head_modules=modules)


def minibatch(policy: Policy, **changed: Any) -> dict[str, Any]:
    torch.manual_seed(3)
    features = policy.body(torch.randn(STEPS, 4))
    log_probs, entropy = {}, {}
    for head, module in policy.heads.items():
        spread = torch.distributions.Categorical(logits=module(features))
        log_probs[head], entropy[head] = spread.log_prob(spread.sample()), spread.entropy()
    return {
        "log_probs": log_probs,
        "old_log_probs": {head: each.detach() - 0.1 for head, each in log_probs.items()},
        "entropy": entropy,
        "policy_loss": sum(log_probs.values()).mean(),
        "value_loss": policy.critic(features).square().mean(),
        **changed,
    }


def one_update(measured: PolicyProbe, policy: Policy, **changed: Any) -> dict[str, Any]:
    reported = minibatch(policy, **changed)
    with measured.update() as update:
        update.minibatch(**reported)
        policy.zero_grad()
        (reported["policy_loss"] + reported["value_loss"]).backward()
        measured.clip_grad_norm_()
    return reported


def test_own_heads_are_measured_like_tamiyo_s(exporter: Exporter) -> None:
    policy = Policy()
    measured = own_probe(exporter, policy)
    one_update(measured, policy)
    reported = one_update(measured, policy)
    shown = page(exporter)
    for head in ("move", "shoot", "op"):
        nats = float(reported["entropy"][head].detach().double().mean())
        share = nats / float(torch.log(torch.tensor(float(CHOICES[head]))))
        assert value(shown, "esper_tamiyo_head_entropy_nats", head=head) == pytest.approx(nats)
        assert value(shown, "esper_tamiyo_head_entropy_ratio", head=head) == pytest.approx(
            share, abs=1e-6
        )
        norm = float(
            torch.cat([p.grad.flatten() for p in policy.heads[head].parameters()]).double().norm()
        )
        clip = value(shown, "esper_tamiyo_grad_norm") / value(
            shown, "esper_tamiyo_grad_norm_pre_clip"
        )
        assert value(shown, "esper_tamiyo_head_grad_norm", head=head) * clip == pytest.approx(
            norm, rel=1e-4
        )
        assert value(shown, "esper_tamiyo_head_grad_norm_previous", head=head) > 0
        assert value(shown, "esper_tamiyo_head_ratio_max", head=head) == pytest.approx(
            1.1052, rel=1e-3
        )
        assert value(shown, "esper_tamiyo_head_state", head=head, state="dead") == 0
        assert value(shown, "esper_tamiyo_head_gradient_state", head=head, state="finite") == 1
    assert value(shown, "esper_tamiyo_head_update_grad_norm_count", head="move") == 2
    assert value(shown, "esper_tamiyo_head_update_grad_norm_count", head="value") == 2


def test_a_head_without_a_choice_has_no_entropy_ratio(exporter: Exporter) -> None:
    policy = Policy()
    one_update(own_probe(exporter, policy), policy)
    shown = heads_of(page(exporter), "esper_tamiyo_head_entropy_ratio")
    assert shown == {"move", "shoot", "op"}


def test_the_page_has_the_policy_s_heads_and_no_others(exporter: Exporter) -> None:
    policy = Policy()
    measured = own_probe(exporter, policy)
    measured.training_started(task="arcade")
    assert heads_of(page(exporter), LATCHED) == set(CHOICES)
    one_update(measured, policy)
    previous = "esper_tamiyo_head_grad_norm_previous"
    one_update(measured, policy)
    assert heads_of(page(exporter), previous) - {"value"} == set(CHOICES), "there is no critic q"
    for name in (LATCHED, "esper_tamiyo_head_grad_norm", "esper_tamiyo_head_entropy_nats"):
        assert heads_of(page(exporter), name) - {"value", "q"} == set(CHOICES)


@pytest.mark.parametrize("started", [True, False])
def test_a_fault_in_an_own_head_is_its_latch_at_once(exporter: Exporter, started: bool) -> None:
    policy = Policy()
    measured = own_probe(exporter, policy)
    if started:
        measured.training_started()
    reported = minibatch(policy)
    reported["log_probs"]["shoot"] = reported["log_probs"]["shoot"] * float("nan")
    with pytest.raises(ZeroDivisionError), measured.update() as update:
        update.minibatch(**reported)
        assert value(page(exporter), LATCHED, head="shoot", kind="nan") == 1
        raise ZeroDivisionError
    assert value(page(exporter), LATCHED, head="move", kind="nan") == 0


def test_a_resumed_run_still_shows_the_latch_of_an_own_head(tmp_path: Path) -> None:
    for resumed in (False, True):
        exporter = Exporter(
            port=0, state_dir=tmp_path, linger=0, run_id="arcade", watch_process=False
        )
        policy = Policy()
        measured = own_probe(exporter, policy)
        measured.training_started()
        if resumed:
            assert value(page(exporter), LATCHED, head="move", kind="inf") == 1
            assert value(page(exporter), LATCHED, head="shoot", kind="inf") == 0
        else:
            reported = minibatch(policy)
            reported["log_probs"]["move"] = reported["log_probs"]["move"] * float("inf")
            with measured.update() as update:
                update.minibatch(**reported)
                update.skip()
        exporter.close()
