"""The world that the policy acts in: seeds, gates, alphas, attribution, governor, what is legal."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from demo.small import one_thread
from esper_exporter.contract.vocabulary import ALPHA_CURVES, BLUEPRINTS, OPS
from esper_exporter.demo.actions import MATTERS, choices, legal_slots
from esper_exporter.demo.blueprints import grow, parameters_of
from esper_exporter.demo.contributions import Matrix, counterfactual, shapley
from esper_exporter.demo.digits import Digits, load
from esper_exporter.demo.governor import Governor
from esper_exporter.demo.host_network import CHANNELS, HostTrainer
from esper_exporter.demo.ppo import GAMMA, LAMBDA, advantages
from esper_exporter.demo.seeds import CURVES, Ramp, Seed, Slot, gate


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load(1)


def trainer(digits: Digits, slots: int = 2) -> HostTrainer:
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(1)
    return HostTrainer([Slot(f"r0c{place}") for place in range(slots)], digits, generator)


def seed(blueprint: str = "conv_small", style: str = "LINEAR_ADD", side: int = 8) -> Seed:
    module = grow(blueprint, CHANNELS, side)
    return Seed("s", blueprint, style, "FAST", 1.0, module, parameters_of(module), 50.0)


@pytest.mark.parametrize("curve", ALPHA_CURVES)
def test_alpha_goes_from_its_start_to_its_target_and_never_back(curve: str) -> None:
    assert set(CURVES) == set(ALPHA_CURVES)
    ramp = Ramp(start=0.2, target=0.7, epochs=5, curve=curve)
    path = [0.2, *(ramp.step() for _ in range(5))]
    assert path == sorted(path)
    assert path[-1] == pytest.approx(0.7)
    assert ramp.done
    assert ramp.step() == pytest.approx(0.7)


def test_a_gate_names_what_holds_a_seed_back() -> None:
    slot = Slot("r0c0", seed=seed())
    slot.enter("TRAINING")
    assert gate(slot).failed == ("trained_long_enough",)
    slot.epochs_in_stage = 1
    assert gate(slot).failed == () and gate(slot).target_stage == "BLENDING"
    assert slot.seed is not None
    slot.seed.grad_ratio = 51.0
    assert gate(slot).failed == ("no_exploding_gradients",)
    slot.enter("HOLDING")
    assert gate(slot).failed == ("held_long_enough", "contribution_measured")


def test_what_is_legal_depends_on_the_stage() -> None:
    slots = []
    for stage in ("DORMANT", "TRAINING", "BLENDING", "HOLDING", "FOSSILIZED", "EMBARGOED"):
        slot = Slot(stage, seed=None if stage in ("DORMANT", "EMBARGOED") else seed())
        slot.enter(stage)
        slots.append(slot)
    legal = {
        op: {s.stage for s, may in zip(slots, legal_slots(op, slots, True), strict=True) if may}
        for op in OPS
    }
    assert legal == {
        "WAIT": {slot.stage for slot in slots},
        "GERMINATE": {"DORMANT"},
        "SET_ALPHA_TARGET": {"BLENDING", "HOLDING"},
        "PRUNE": {"TRAINING", "BLENDING", "HOLDING"},
        "FOSSILIZE": {"HOLDING"},
        "ADVANCE": {"TRAINING", "BLENDING"},
    }
    assert not any(legal_slots("GERMINATE", slots, False))
    for slot in slots:
        if slot.seed is not None:
            slot.seed.fading = True
    assert not any(legal_slots("PRUNE", slots, True))
    assert set(MATTERS) == set(choices(["r0c0"]))
    assert MATTERS["op"] == set(OPS)


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
@pytest.mark.parametrize("side", [8, 4])
def test_every_blueprint_keeps_the_shape_and_learns_unless_it_has_nothing_to(
    blueprint: str, side: int
) -> None:
    module = grow(blueprint, CHANNELS, side)
    x = torch.randn(3, CHANNELS, side, side)
    assert module(x).shape == x.shape
    assert (parameters_of(module) == 0) == (blueprint == "noop")


def test_a_seed_in_training_learns_from_the_loss_and_leaves_the_output(digits: Digits) -> None:
    host = trainer(digits)
    images = digits.images[:8]
    alone = host.host(images)
    slot = host.slots[0]
    slot.seed = seed()
    slot.enter("TRAINING")
    loss = host.host(images).square().sum()
    assert torch.allclose(host.host(images), alone, atol=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in slot.seed.module.parameters())
    slot.enter("BLENDING")
    assert torch.equal(host.host(images), alone)  # alpha is still 0
    slot.seed.alpha = 0.5
    assert not torch.allclose(host.host(images), alone)
    assert torch.equal(host.host(images, frozenset({"r0c0"})), alone)


def test_a_host_learns_digits(digits: Digits) -> None:
    host = trainer(digits)
    with one_thread():
        for _ in range(24):
            epoch = host.train()
        accuracy, loss = host.validate()
    assert accuracy > 30
    assert loss < 2.0
    assert set(epoch.times_ms) == {"data_transfer", "forward", "backward", "optimizer", "epoch"}


def test_the_governor_gives_a_host_its_best_weights_back(digits: Digits) -> None:
    host = trainer(digits)
    governor = Governor(host)
    assert governor.judge(2.0) is None
    good = host.validate()
    with torch.no_grad():
        for parameter in host.host.parameters():
            parameter.mul_(30.0)
    panic = governor.judge(host.validate()[1])
    assert panic is not None and panic.loss > panic.threshold
    governor.restore()
    assert host.validate() == good
    nothing = governor.judge(math.nan)
    assert nothing is not None and nothing.reason == "governor_nan"
    assert governor.judge(2.1) is None


def test_shapley_values_are_the_mean_gain_over_all_orders_of_joining() -> None:
    names = ("a", "b", "c")
    masks = list(itertools.product((False, True), repeat=3))
    worth = {mask: 7.0 * mask[0] + 3.0 * mask[1] * mask[2] + 0.5 * sum(mask) for mask in masks}
    found = shapley(Matrix(names, worth, "full_factorial", 0.0))
    for place, name in enumerate(names):
        gains = []
        for order in itertools.permutations(range(3)):
            before = tuple(order.index(each) < order.index(place) for each in range(3))
            after = tuple(there or each == place for each, there in enumerate(before))
            gains.append(worth[after] - worth[before])
        assert found[name]["mean"] == pytest.approx(sum(gains) / len(gains))
    total = sum(each["mean"] for each in found.values())
    assert total == pytest.approx(worth[True, True, True] - worth[False, False, False])


def test_a_counterfactual_switches_seeds_off_and_leaves_the_host_alone(digits: Digits) -> None:
    host = trainer(digits)
    slot = host.slots[0]
    slot.seed = seed()
    slot.seed.alpha = 1.0
    slot.enter("HOLDING")
    matrix = counterfactual(host, ["r0c0"])
    assert matrix.accuracies[True,] == host.validate()[0]
    slot.seed = None
    assert matrix.accuracies[False,] == host.validate()[0]
    assert counterfactual(host, []).slot_ids == ()
    assert shapley(counterfactual(host, [])) == {}


def test_advantages_are_sums_of_discounted_errors() -> None:
    torch.manual_seed(1)
    rewards, values = torch.randn(6, 3), torch.randn(6, 3)
    found, errors = advantages(rewards, values)
    for env in range(3):
        for step in range(6):
            slow = 0.0
            for later in range(step, 6):
                after = float(values[later + 1, env]) if later < 5 else 0.0
                error = float(rewards[later, env]) + GAMMA * after - float(values[later, env])
                slow += (GAMMA * LAMBDA) ** (later - step) * error
                assert float(errors[later, env]) == pytest.approx(error, abs=1e-5)
            assert float(found[step, env]) == pytest.approx(slow, abs=1e-4)
