"""Stable-Baselines3 with the callback: right fields, the same weights. `make test-adapters`."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from esper_exporter import Exporter
from support.pages import value

MISSING = importlib.util.find_spec("stable_baselines3") is None
pytestmark = pytest.mark.skipif(MISSING, reason="not run: pip install stable-baselines3")

STEPS = 512
"""Two rollouts of two environments; each algorithm trains twice, with and without."""
SHORT = {"n_steps": 128, "n_epochs": 3}
LATE = {"learning_starts": STEPS - 60}


def dice() -> Any:
    import gymnasium as gym

    class Dice(gym.Env):  # type: ignore[misc,type-arg]
        """Two dimensions to choose in; the first choice of the first pays."""

        observation_space = gym.spaces.Box(-1, 1, (4,))
        action_space = gym.spaces.MultiDiscrete([3, 2])

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.steps = 0
            return self.np_random.random(4).astype(np.float32), {}

        def step(self, action: Any) -> Any:
            self.steps += 1
            seen = self.np_random.random(4).astype(np.float32)
            return seen, float(action[0] == 1), self.steps > 20, False, {}

    return Dice


def learn(algorithm: str, env: Any, exporter: Exporter | None, **options: Any) -> Any:
    import stable_baselines3 as sb3
    from stable_baselines3.common.env_util import make_vec_env

    from esper_exporter.adapters.sb3 import EsperCallback

    model = getattr(sb3, algorithm)(
        "MlpPolicy", make_vec_env(env, 2, seed=1), seed=1, device="cpu", **options
    )
    model.learn(STEPS, callback=EsperCallback(exporter) if exporter else None)
    return model


@pytest.mark.parametrize(
    ("algorithm", "env", "options", "heads", "shown"),
    [
        (
            "PPO",
            "CartPole-v1",
            SHORT,
            {"action"},
            {"policy_loss", "value_loss"},
        ),
        (
            "PPO",
            "dice",
            SHORT,
            {"action_0", "action_1"},
            {"policy_loss", "value_loss"},
        ),
        (
            "PPO",
            "Pendulum-v1",
            SHORT,
            set(),
            {"policy_loss", "value_loss"},
        ),
        ("A2C", "CartPole-v1", {}, {"action"}, {"policy_loss", "value_loss"}),
        ("DQN", "CartPole-v1", {"learning_starts": 100}, set(), {"value_loss"}),
        (
            "SAC",
            "Pendulum-v1",
            LATE,
            set(),
            {"policy_loss", "value_loss"},
        ),
    ],
)
def test_an_algorithm_is_measured_and_trains_the_same(
    algorithm: str, env: str, options: dict[str, Any], heads: set[str], shown: set[str]
) -> None:
    where = dice() if env == "dice" else env
    exporter = Exporter(port=0, state_dir="off", linger=0, run_id="x", watch_process=False)
    plain = learn(algorithm, where, None, **options)
    watched = learn(algorithm, where, exporter, **options)
    for one, other in zip(plain.policy.parameters(), watched.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    page = exporter.render().decode()
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
    assert value(page, "esper_tamiyo_updates_total") > 0
    assert value(page, "esper_tamiyo_grad_norm_pre_clip") > 0
    for loss in ("policy_loss", "value_loss"):
        assert (value(page, f"esper_tamiyo_{loss}") is not None) == (loss in shown)
    for head in heads:
        assert value(page, "esper_tamiyo_head_kl_nats", head=head) >= 0
        assert 0 < value(page, "esper_tamiyo_head_entropy_ratio", head=head) <= 1
    if algorithm == "PPO":
        kl = value(page, "esper_tamiyo_kl_divergence_nats")
        assert kl == pytest.approx(watched.logger.name_to_value.get("train/approx_kl", kl), abs=1)
        assert value(page, "esper_tamiyo_explained_variance") is not None
