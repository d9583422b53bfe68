"""AMP: an overflow is the scaler's business; a host's scaler is not the policy's."""

from __future__ import annotations

import pytest
import torch

from esper_exporter import Exporter
from probes.loop import NAN, Policy, Told, batch, gradients, page, probe
from support.pages import value

INF = float("inf")


def host_step(scaler: torch.amp.GradScaler, overflow: bool) -> None:
    """One step of a host network under the scaler."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], 0.1)
    loss = (weight * (INF if overflow else 1.0)).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def step(policy: Policy, by: float, optimizer: torch.optim.Optimizer) -> None:
    """One step of the policy, in full precision."""
    gradients(policy, by)
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
    optimizer.step()


def scaler_of(scale: float = 1024.0) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=scale)


def test_a_host_s_overflow_is_not_the_policy_s() -> None:
    sink, policy, scaler = Told(), Policy(), scaler_of()
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    measured = probe(sink, policy, scaler=scaler, optimizer=optimizer)
    for overflow in (False, True):
        host_step(scaler, overflow)
        with measured.update() as update:
            update.minibatch(**batch())
            step(policy, 1.0, optimizer)
            host_step(scaler, overflow)
    assert scaler.get_scale() == 256.0
    for update in sink.of("TAMIYO_POLICY_UPDATE"):
        assert not update.get("amp_overflow_count")
        assert "loss_scale" not in update
    assert sink.anomalies == [] and sink.failures == 0


@pytest.mark.parametrize("by", [NAN, INF])
def test_a_host_s_scaler_hides_no_fault_of_the_policy(by: float) -> None:
    exporter = Exporter(port=0, state_dir="off", linger=0, watch_process=False)
    policy, scaler = Policy(), scaler_of()
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    measured = probe(exporter, policy, scaler=scaler, optimizer=optimizer)
    with measured.update() as update:
        update.minibatch(**batch())
        step(policy, by, optimizer)
        host_step(scaler, True)
    assert value(page(exporter), "esper_tamiyo_nonfinite_latched", source="gradients") == 1


def test_with_one_scaler_for_both_only_the_policy_s_overflows_count() -> None:
    sink, policy, scaler = Told(), Policy(), scaler_of()
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    measured = probe(sink, policy, scaler=scaler, optimizer=optimizer)
    for mine, theirs in ((1.0, False), (1.0, True), (INF, False)):
        with measured.update() as update:
            update.minibatch(**batch())
            gradients(policy, mine)
            host = torch.nn.Parameter(torch.ones(2))
            other = torch.optim.SGD([host], 0.1)
            scaler.scale((host * (INF if theirs else 1.0)).sum()).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.step(other)
            scaler.update()
    found = [update["amp_overflow_count"] for update in sink.of("TAMIYO_POLICY_UPDATE")]
    assert found[0] == 0 and found[2] == 1
    assert sink.anomalies == [] and sink.failures == 0
    assert found[1] == 0
