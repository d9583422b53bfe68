"""Every field of every trainer beside a second opinion: right, or absent for a reason."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters.third_party.field_table import judge
from adapters.third_party.reference import Recorder, array, expected
from esper_exporter import Exporter
from support.pages import value

NO_LIBRARY = "not run: pip install {}"
HARDLY_REPEAT = "continuous actions hardly repeat"
MINIBATCH_ADVANTAGES = "normalised in each minibatch, out of the callback's sight"


def needs(library: str) -> Any:
    missing = importlib.util.find_spec(library.replace("-", "_")) is None
    return pytest.mark.skipif(missing, reason=NO_LIBRARY.format(library))


def exporter() -> Exporter:
    return Exporter(port=0, state_dir="off", linger=0, run_id="x", watch_process=False)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), other.parameters()))


def page_of(reported: Exporter) -> str:
    page = reported.render().decode()
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
    return page


# -- Stable-Baselines3 -----------------------------------------------------------------------------


def by_dimension(policy: Any, seen: Tensor, actions: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Log-probabilities and entropies of each dimension of an action."""
    with torch.no_grad():
        spread = policy.get_distribution(seen)
        inner = spread.distribution
        if isinstance(inner, list):
            columns = actions.reshape(len(actions), -1).unbind(1)
            return [(d.log_prob(c), d.entropy()) for d, c in zip(inner, columns, strict=True)]
        flat = actions.flatten() if isinstance(inner, torch.distributions.Categorical) else actions
        return [(spread.log_prob(flat), spread.entropy())]


def record_sb3(model: Any, recorder: Recorder, heads: tuple[str, ...]) -> None:
    train, evaluate, policy = model.train, model.policy.evaluate_actions, model.policy

    def evaluate_actions(seen: Tensor, actions: Tensor) -> Any:
        now = recorder.now
        assert now is not None
        new, old = by_dimension(policy, seen, actions), by_dimension(acted, seen, actions)
        for head, (log_prob, entropy), (before, _) in zip(heads, new, old, strict=True):
            now.new.setdefault(head, []).append(array(log_prob))
            now.entropy.setdefault(head, []).append(array(entropy))
            now.old.setdefault(head, []).append(array(before))
        return evaluate(seen, actions)

    def measured_train() -> None:
        nonlocal acted
        acted = copy.deepcopy(policy)
        now, buffer = recorder.begin(policy), model.rollout_buffer
        now.rollout = {
            "values": array(buffer.values),
            "returns": array(buffer.returns),
            "raw_advantages": array(buffer.advantages),
        }
        columns = buffer.actions.reshape(-1, buffer.actions.shape[-1]).T
        if type(model.action_space).__name__ != "Box":
            now.actions = {head: array(column) for head, column in zip(heads, columns, strict=True)}
        policy.evaluate_actions = evaluate_actions
        try:
            train()
        finally:
            del policy.evaluate_actions
        logged = model.logger.name_to_value
        first = "policy_gradient_loss" if "train/policy_gradient_loss" in logged else "policy_loss"
        now.losses = {
            "policy_loss": [logged[f"train/{first}"]],
            "value_loss": [logged["train/value_loss"]],
        }
        recorder.end()

    acted: Any = None
    model.train = measured_train


@needs("stable-baselines3")
@pytest.mark.parametrize(
    ("algorithm", "env", "heads"),
    [
        ("PPO", "CartPole-v1", {"action": 2}),
        ("PPO", "Pendulum-v1", {"action": None}),
        ("PPO", "dice", {"action_0": 3, "action_1": 2}),
        ("A2C", "CartPole-v1", {"action": 2}),
    ],
)
def test_stable_baselines3(algorithm: str, env: str, heads: dict[str, int | None]) -> None:
    import stable_baselines3 as sb3
    from stable_baselines3.common.env_util import make_vec_env

    from adapters.third_party.test_sb3 import dice
    from esper_exporter.adapters.sb3 import EsperCallback

    short = {"n_steps": 64, "n_epochs": 2, "batch_size": 32} if algorithm == "PPO" else {}

    def made() -> Any:
        where = make_vec_env(dice() if env == "dice" else env, 2, seed=1)
        return getattr(sb3, algorithm)("MlpPolicy", where, seed=1, device="cpu", **short)

    reported, recorder, plain = exporter(), Recorder(), made()
    record_sb3(plain, recorder, tuple(heads))
    with recorder.watching():
        plain.learn(256)
    measured = made()
    measured.learn(256, callback=EsperCallback(reported, every=1))
    assert same_weights(plain.policy, measured.policy)
    reasons = {"advantage_mean": MINIBATCH_ADVANTAGES, "advantage_std": MINIBATCH_ADVANTAGES}
    reasons |= {"gradient_cv": "one optimizer step an update"}
    if None in heads.values():
        reasons |= {"head_entropy_ratio": "a continuous head has no largest entropy"}
        reasons |= dict.fromkeys(("action_diversity", "dominant_action_ratio"), HARDLY_REPEAT)
    judge(f"SB3 {algorithm} {env}", page_of(reported), expected(recorder.last, 0.2, heads), reasons)


# -- TRL -------------------------------------------------------------------------------------------


@needs("trl")
def test_trl_grpo(tmp_path: Path) -> None:
    from transformers import TrainerCallback

    from adapters.third_party import test_trl
    from esper_exporter.adapters.trl import attach

    reported, recorder = exporter(), Recorder()

    class Records(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, model: Any, **__: Any) -> None:
            recorder.begin(model)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            recorder.end()

    def record(trainer: Any) -> None:
        loss_of, logps_of = trainer.compute_loss, trainer._get_per_token_logps_and_entropies

        def compute_loss(model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
            loss, now = loss_of(model, inputs, *args, **more), recorder.now
            assert now is not None
            now.losses.setdefault("policy_loss", []).append(loss.item())
            now.valid.append(array(inputs["completion_mask"]))
            if (old := inputs.get("old_per_token_logps")) is not None:
                now.old.setdefault("token", []).append(array(old))
            before = now.rollout.get("advantages", array(torch.empty(0)))
            pieces = [torch.as_tensor(before), torch.as_tensor(array(inputs["advantages"]))]
            now.rollout["advantages"] = array(torch.cat(pieces))
            return loss

        def per_token(*args: Any, **more: Any) -> Any:
            found, now = logps_of(*args, **more), recorder.now
            if now is not None and torch.is_grad_enabled():
                now.new.setdefault("token", []).append(array(found[0]))
                now.entropy.setdefault("token", []).append(array(found[1]))
            return found

        trainer.compute_loss, trainer._get_per_token_logps_and_entropies = compute_loss, per_token
        trainer.add_callback(Records())

    with recorder.watching():
        plain = test_trl.train(record, tmp_path)
    measured = test_trl.train(lambda trainer: attach(trainer, reported, every=1), tmp_path)
    assert same_weights(plain, measured)
    reasons = {
        "value_loss": "no critic",
        "critic": "no critic",
        "gradient_cv": "one optimizer step an update",
        "sample": "group-relative advantages are not normalised again; tokens are no actions",
    }
    wanted = expected(recorder.last, 0.2, {"token": 13})
    judge("TRL GRPO", page_of(reported), wanted, reasons)


# -- any loop --------------------------------------------------------------------------------------

NO_POLICY = {
    "value_loss": "the loop has one loss",
    "ratios": "not a policy's update",
    "policy": "not a policy's update",
    "critic": "no critic",
    "sample": "no rollout",
    "gradient_cv": "one optimizer step an update",
}
NO_CLIP = dict.fromkeys(
    ("grad_clipped_ratio", "gradient_utilization_ratio", "max_grad_norm"), "nothing is clipped"
)


@needs("lightning")
@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (4, 0.1)])
def test_lightning(accumulate: int, clip: float | None, tmp_path: Path) -> None:
    import lightning.pytorch as pl

    from adapters.third_party.test_lightning import fit
    from esper_exporter.adapters.lightning import EsperCallback

    reported, recorder = exporter(), Recorder()

    class Records(pl.Callback):  # type: ignore[misc]
        steps = 0

        def on_before_optimizer_step(self, trainer: Any, module: Any, *_: Any) -> None:
            recorder.see(module.parameters())
            if clip is not None and recorder.now:
                recorder.now.limits.append(clip)

        def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            if recorder.now is None:
                now, step = recorder.begin(module), type(module).training_step

                def training_step(*args: Any) -> Any:
                    loss = step(module, *args)
                    now.losses.setdefault("policy_loss", []).append(loss.item())
                    return loss

                module.training_step = training_step

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.global_step != self.steps:
                self.steps = trainer.global_step
                recorder.end()

    plain = fit([Records()], tmp_path, accumulate, clip)
    measured = fit([EsperCallback(reported, every=1)], tmp_path, accumulate, clip)
    assert same_weights(plain, measured)
    wanted = expected(recorder.last, 0.2, {"output": None})
    name = "Lightning" if clip is None else "Lightning, accumulated and clipped"
    judge(name, page_of(reported), wanted, NO_POLICY | (NO_CLIP if clip is None else {}))


def watched(recorder: Recorder, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """An update for each optimizer step, in the recorder."""
    recorder.begin(model)

    def stepped(*_: Any) -> None:
        recorder.end()
        recorder.begin(model)

    optimizer.register_step_post_hook(stepped)


def supervised(reported: Exporter | None, recorder: Recorder | None) -> nn.Module:
    from esper_exporter.adapters.watch import watch

    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    watching = watch(model, optimizer, reported, every=1) if reported else None
    if recorder:
        watched(recorder, model, optimizer)
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(torch.randn(32, 4)), torch.randint(0, 3, (32,)))
        if watching:
            watching.loss(loss)
        if recorder and recorder.now:
            recorder.now.losses = {"policy_loss": [loss.item()]}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if watching:
        watching.close()
    return model


def test_a_supervised_loop() -> None:
    reported, recorder = exporter(), Recorder()
    with recorder.watching():
        plain = supervised(None, recorder)
    assert same_weights(plain, supervised(reported, None))
    wanted = expected(recorder.last, 0.2, {"output": None})
    judge("supervised loop, watch", page_of(reported), wanted, NO_POLICY | NO_CLIP)


def tianshou_policy(reported: Exporter | None, recorder: Recorder | None) -> nn.Module:
    """Two updates of its REINFORCE on a buffer of made episodes."""
    import gymnasium as gym
    import numpy as np
    from tianshou.algorithm import Reinforce
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Batch, ReplayBuffer

    from esper_exporter.adapters.watch import watch

    class Actor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))

        def forward(self, obs: Any, state: Any = None, info: Any = None) -> Any:
            return self.net(torch.as_tensor(obs, dtype=torch.float32)), state

    torch.manual_seed(1)
    np.random.seed(1)
    draw = np.random.default_rng(1)
    policy = DiscreteActorPolicy(
        actor=Actor(),
        action_space=gym.spaces.Discrete(2),
        observation_space=gym.spaces.Box(-1, 1, (4,)),
    )
    algorithm = Reinforce(policy=policy, optim=AdamOptimizerFactory(lr=1e-2))
    optimizer = algorithm.optim._optim
    watching = watch(policy, optimizer, reported, every=1) if reported else None
    if recorder:
        watched(recorder, policy, optimizer)
    buffer = ReplayBuffer(64)
    for step in range(64):
        seen, following = draw.normal(size=(2, 4)).astype(np.float32)
        ended = step % 16 == 15
        buffer.add(
            Batch(
                obs=seen, act=int(draw.integers(2)), rew=float(draw.random()), terminated=ended,
                truncated=False, obs_next=following, info={},
            )
        )  # fmt: skip
    from tianshou.utils.torch_utils import policy_within_training_step

    with policy_within_training_step(policy):
        algorithm.update(buffer=buffer, batch_size=32, repeat=2)
    if watching:
        watching.close()
    return policy


@needs("tianshou")
def test_tianshou() -> None:
    reported, recorder = exporter(), Recorder()
    with recorder.watching():
        plain = tianshou_policy(None, recorder)
    assert same_weights(plain, tianshou_policy(reported, None))
    reasons = NO_POLICY | NO_CLIP | {"policy_loss": "inside tianshou's update"}
    wanted = expected(recorder.last, 0.2, {"output": None})
    judge("tianshou Reinforce, watch", page_of(reported), wanted, reasons)


def torchrl_policy(reported: Exporter | None, recorder: Recorder | None) -> nn.Module:
    """Clipped PPO with TorchRL's loss module and its own advantages."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.modules import ActorValueOperator, ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE

    from esper_exporter import PolicyProbe

    torch.manual_seed(1)
    body = TensorDictModule(nn.Sequential(nn.Linear(4, 16), nn.Tanh()), ["observation"], ["hidden"])
    head = TensorDictModule(nn.Linear(16, 3), ["hidden"], ["logits"])
    actor = ProbabilisticActor(
        head, in_keys=["logits"], distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )  # fmt: skip
    both = ActorValueOperator(body, actor, ValueOperator(nn.Linear(16, 1), in_keys=["hidden"]))
    policy, critic = both.get_policy_operator(), both.get_value_operator()
    loss = ClipPPOLoss(policy, critic, clip_epsilon=0.2)
    gae = GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    optimizer = torch.optim.Adam(both.parameters(), 3e-3)
    probe = (
        PolicyProbe(both, reported, heads={"action": 3}, optimizer=optimizer, every=1)
        if reported
        else None
    )
    for _ in range(2):
        data = TensorDict({"observation": torch.randn(8, 16, 4)}, [8, 16])
        with torch.no_grad():
            policy(data)
        data["next"] = TensorDict(
            {
                "observation": torch.randn(8, 16, 4), "reward": torch.randn(8, 16, 1),
                "done": torch.zeros(8, 16, 1, dtype=torch.bool),
                "terminated": torch.zeros(8, 16, 1, dtype=torch.bool),
            },
            [8, 16],
        )  # fmt: skip
        with torch.no_grad():
            gae(data)
        flat = data.reshape(-1)
        known = set(flat.keys())
        name = "action_log_prob" if "action_log_prob" in known else "sample_log_prob"
        sample = {
            "values": flat["state_value"], "returns": flat["value_target"],
            "raw_advantages": flat["advantage"],
        }  # fmt: skip
        actions = {"action": flat["action"]}
        update = probe.update().begin() if probe else None
        if update:
            update.rollout(**sample, actions=actions)
        if recorder:
            now = recorder.begin(both)
            now.rollout = {kind: array(tensor) for kind, tensor in sample.items()}
            now.actions = {"action": array(flat["action"])}
        for at in torch.randperm(128).chunk(4):
            part = flat[at]
            losses = loss(part)
            with torch.no_grad():
                spread = policy.get_dist(part)
                new, old = spread.log_prob(part["action"]), part[name]
            given_losses = {
                "policy_loss": losses["loss_objective"], "value_loss": losses["loss_critic"],
            }  # fmt: skip
            if update:
                update.minibatch(
                    log_probs={"action": new},
                    old_log_probs={"action": old},
                    entropy={"action": spread.entropy()},
                    **given_losses,
                )
            if recorder and recorder.now:
                recorder.now.new.setdefault("action", []).append(array(new))
                recorder.now.old.setdefault("action", []).append(array(old))
                recorder.now.entropy.setdefault("action", []).append(array(spread.entropy()))
                for kind, each in given_losses.items():
                    recorder.now.losses.setdefault(kind, []).append(each.item())
            optimizer.zero_grad()
            sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
            torch.nn.utils.clip_grad_norm_(both.parameters(), 0.5)
            optimizer.step()
        if update:
            update.end()
        if recorder:
            recorder.end()
    if probe:
        probe.close()
    return both


@needs("torchrl")
def test_torchrl() -> None:
    reported, recorder = exporter(), Recorder()
    with recorder.watching():
        plain = torchrl_policy(None, recorder)
    assert same_weights(plain, torchrl_policy(reported, None))
    reasons = dict.fromkeys(("advantage_mean", "advantage_std"), "not normalised")
    wanted = expected(recorder.last, 0.2, {"action": 3})
    judge("TorchRL ClipPPOLoss", page_of(reported), wanted, reasons)
