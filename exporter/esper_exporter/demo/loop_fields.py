"""Fields of an update that the training loop reports and the probe cannot measure."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from esper_exporter.demo.episode_batch import Rollout
from esper_exporter.demo.policy_network import State


def of_the_rollout(rollout: Rollout) -> dict[str, Any]:
    """Operation values, the share of steps with a choice, and the LSTM's final state.

    An operation's value is the mean over the steps in which it was legal, NaN if it never was.
    """
    legal = rollout.legal_ops.flatten(0, 1)
    ever = legal.any(0)
    means = (rollout.q.flatten(0, 1).double() * legal).sum(0) / legal.sum(0)
    known = means[ever]
    forced = legal.sum(-1) <= 1
    share = float(forced.double().mean())
    return {
        "op_q_values": tuple(means.tolist()),
        "op_valid_mask": tuple(ever.tolist()),
        "q_variance": float(known.var(correction=0)),
        "q_spread": float(known.max() - known.min()),
        "forced_step_ratio": share,
        "decision_density": 1.0 - share,
        "usable_actor_timesteps": int((~forced).sum()),
        **memory_health("rollout_lstm", rollout.memory),
    }


def memory_health(prefix: str, state: State) -> dict[str, Any]:
    """Size of an LSTM's state, (layers, E, width) each, over all and by environment."""
    found: dict[str, Any] = {}
    wrong: dict[str, bool] = {"nan": False, "inf": False}
    for part, tensor in zip("hc", state, strict=True):
        values = tensor.detach().double()
        by_environment = _rms(values.transpose(0, 1).flatten(1))
        found |= {
            f"{prefix}_{part}_l2_total": float(values.norm()),
            f"{prefix}_{part}_rms": float(_rms(values.flatten())),
            f"{prefix}_{part}_env_rms_mean": float(by_environment.mean()),
            f"{prefix}_{part}_env_rms_max": float(by_environment.max()),
            f"{prefix}_{part}_max": float(values.abs().max()),
        }
        wrong["nan"] |= bool(values.isnan().any())
        wrong["inf"] |= bool(values.isinf().any())
    return found | {f"{prefix}_has_{kind}": there for kind, there in wrong.items()}


def _rms(values: Tensor) -> Tensor:
    return values.square().mean(-1).sqrt()
