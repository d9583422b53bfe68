"""Stable-Baselines3 with the callback: `pip install '.[sb3]'` from the checkout.

usage: sb3_ppo.py [STEPS]
"""

from __future__ import annotations

import sys

from stable_baselines3 import PPO

from esper_exporter.adapters.sb3 import EsperCallback


def main(steps: int = 20_000) -> str:
    """Train; the page as it was at the end."""
    measured = EsperCallback(run_id="cartpole")
    PPO("MlpPolicy", "CartPole-v1", n_steps=256, device="cpu").learn(steps, callback=measured)
    return measured.exporter.render().decode()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
