"""From an update's numbers on the host to the fields of a policy update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from esper_exporter import health
from esper_exporter.contract.vocabulary import HEAD_ENTROPY_COEFFICIENTS, OPS
from esper_exporter.probes.torch.minibatch import JOINT, PER_HEAD
from esper_exporter.probes.torch.rollout import MOMENTS

Array = np.ndarray[Any, np.dtype[np.float64]]
Fields = dict[str, Any]

RATIO_LIMIT = 5.0
DETERMINISTIC = 0.95
"""From this determinism on a policy hardly chooses (plan, C.5)."""

_LARGEST = frozenset({"ratio_max", "kl_max", "log_prob_max"})
_SMALLEST = frozenset({"ratio_min", "log_prob_min"})
_MEANS = frozenset({"policy_loss", "value_loss", "entropy_loss"})


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def policy_fields(heads: Mapping[str, int], minibatches: Sequence[Array]) -> Fields:
    """Trust region, heads, log-probabilities and losses, over all minibatches of an update."""
    rows = len(heads) * len(PER_HEAD)
    table = np.stack([vector[:rows] for vector in minibatches])
    table = table.reshape(len(minibatches), len(PER_HEAD), len(heads))
    together = np.stack([vector[rows:] for vector in minibatches])
    joint = {name: float(_joined(name, together[:, column])) for column, name in enumerate(JOINT)}
    found = _joint_fields(joint)
    entropy_weighted, nats_sum, most = 0.0, 0.0, 0.0
    nats: dict[str, float] = {}
    coverage: dict[str, float] = {}
    flags: dict[str, dict[str, bool]] = {"nan": {}, "inf": {}}
    steps = joint["steps"]
    for place, (head, choices) in enumerate(heads.items()):
        own = {
            name: float(_joined(name, table[:, row, place])) for row, name in enumerate(PER_HEAD)
        }
        for kind, detected in flags.items():
            detected[head] = own[kind] > 0
        if not steps:
            continue
        name = f"head_{head}_"
        nats[head] = own["entropy"] / steps
        limit = math.log(choices) if choices > 1 else 0.0
        if limit:
            # As the real system tells it: 0 where the head had no choice that mattered.
            found[name + "entropy"] = own["choice_entropy"] / steps / limit
            entropy_weighted += HEAD_ENTROPY_COEFFICIENTS.get(head, 1.0) * nats[head] / limit
            nats_sum += nats[head]
            most += limit
        coverage[head] = found[name + "active_ratio"] = own["active"] / steps
        found[name + "learnable_fraction"] = own["learnable"] / steps
        if own["active"]:
            found[name + "ratio_max"] = own["ratio_max"]
            found[name + "kl"] = own["kl"] / own["active"]
            found[name + "clip_fraction"] = own["clipped"] / own["active"]
    found |= {
        "entropy": entropy_weighted,
        "head_entropy_nats": nats,
        "causal_mask_coverage": coverage,
        "head_nan_detected": flags["nan"],
        "head_inf_detected": flags["inf"],
    }
    if most:
        found["policy_determinism"] = 1.0 - nats_sum / most
        found["entropy_collapsed"] = found["policy_determinism"] > DETERMINISTIC
    return found


def _joined(name: str, column: Array) -> Any:
    if name in _LARGEST:
        return column.max()
    if name in _SMALLEST:
        return column.min()
    return column.mean() if name in _MEANS else column.sum()


def _joint_fields(joint: Mapping[str, float]) -> Fields:
    steps = joint["steps"]
    found: Fields = {
        "policy_loss": joint["policy_loss"],
        "value_loss": joint["value_loss"],
        "entropy_loss": joint["entropy_loss"],
        "valid_sample_ratio": _share(steps, joint["all_steps"]),
    }
    if not steps:
        return found
    mean = joint["ratio_offset"] / steps
    spread = max(0.0, joint["ratio_offset_square"] / steps - mean * mean)
    clipped = joint["clipped_above"] + joint["clipped_below"]
    return found | {
        "kl_divergence": joint["kl"] / steps,
        "approx_kl_max": joint["kl_max"],
        "kl_reverse": joint["kl_reverse"] / steps,
        "clip_fraction": clipped / steps,
        "clip_fraction_positive": joint["clipped_above"] / steps,
        "clip_fraction_negative": joint["clipped_below"] / steps,
        "trust_region_violations": int(clipped),
        "ratio_mean": mean + 1.0,
        "ratio_std": math.sqrt(spread) if spread == spread else math.nan,
        "ratio_min": joint["ratio_min"],
        "ratio_max": joint["ratio_max"],
        "joint_ratio_max": joint["ratio_max"],
        "log_prob_underflow_count": int(joint["underflows"]),
        "log_prob_min": joint["log_prob_min"],
        "log_prob_max": joint["log_prob_max"],
        "forced_step_ratio": joint["forced"] / steps,
        "decision_density": 1.0 - joint["forced"] / steps,
        "usable_actor_timesteps": int(steps - joint["forced"]),
    }


class Sample:
    """The moments of one sample, as `esper_exporter.probes.torch.rollout.moments` tells them."""

    def __init__(self, told: Array) -> None:
        values = dict(zip(MOMENTS, (float(value) for value in told), strict=True))
        self.count = values["count"]
        self.mean, self.variance = values["mean"], values["m2"]
        self.min, self.max = values["min"], values["max"]
        self.positive = _share(values["positive"], self.count)
        self.nonfinite = values["nonfinite"] > 0
        self._third, self._fourth = values["m3"], values["m4"]

    @property
    def std(self) -> float:
        """Standard deviation of the population."""
        return math.sqrt(self.variance) if self.variance >= 0 else math.nan

    @property
    def skewness(self) -> float | None:
        """Third standardised moment; None where nothing varies."""
        return self._third / self.variance**1.5 if self.variance > 1e-20 else None

    @property
    def kurtosis(self) -> float | None:
        """Excess over a normal distribution's; None where nothing varies."""
        return self._fourth / self.variance**2 - 3.0 if self.variance > 1e-20 else None


def rollout_fields(told: Mapping[str, Array], heads: Mapping[str, int]) -> Fields:
    """Values, returns, advantages, TD errors and actions of an update's rollout."""
    samples = {
        name: Sample(told[name])
        for name in ("values", "returns", "errors", "advantages", "raw_advantages", "td_errors")
        if name in told
    }
    found: Fields = {}
    values, returns = samples["values"], samples["returns"]
    if not values.count:
        return found
    errors = samples["errors"]
    found |= {
        "value_mean": values.mean,
        "value_std": values.std,
        "value_min": values.min,
        "value_max": values.max,
        "return_mean": returns.mean,
        "return_std": returns.std,
        "return_variance": returns.variance,
        "return_skewness": returns.skewness,
        "value_prediction_error_mean": errors.mean,
        "value_prediction_error_std": errors.std,
        "ev_return_variance": returns.variance,
        **dict(
            zip(("return_p10", "return_p50", "return_p90"), told["quantiles"].tolist(), strict=True)
        ),
    }
    together = values.std * returns.std
    if together > 0:
        correlation = float(told["covariance"][0]) / together
        found["v_return_correlation"] = found["value_target_correlation"] = correlation
    if returns.variance > 0:
        found["explained_variance"] = 1.0 - errors.variance / returns.variance
        found["value_nrmse"] = math.sqrt(errors.variance + errors.mean**2) / returns.std
    if (advantages := samples.get("advantages")) is not None:
        found |= _advantage_fields(advantages)
    if (raw := samples.get("raw_advantages")) is not None:
        found |= {
            "advantage_raw_mean": raw.mean,
            "advantage_raw_std": raw.std,
            "pre_norm_advantage_mean": raw.mean,
            "pre_norm_advantage_std": raw.std,
        }
    if (td_errors := samples.get("td_errors")) is not None:
        found |= {
            "td_error_mean": td_errors.mean,
            "td_error_std": td_errors.std,
            "bellman_error": td_errors.variance + td_errors.mean**2,
        }
    if "action_mix" in told:
        combinations, commonest = told["action_mix"].tolist()
        found["action_diversity"] = int(combinations)
        found["dominant_action_ratio"] = commonest / values.count
    if "ops" in told and heads.get("op") == len(OPS):
        counts = told["ops"].tolist()
        found["op_distribution"] = {
            op: count / values.count for op, count in zip(OPS, counts, strict=True)
        }
    return found


def _advantage_fields(advantages: Sample) -> Fields:
    return {
        "advantage_mean": advantages.mean,
        "advantage_std": advantages.std,
        "advantage_skewness": advantages.skewness,
        "advantage_kurtosis": advantages.kurtosis,
        "advantage_min": advantages.min,
        "advantage_max": advantages.max,
        "advantage_positive_ratio": advantages.positive,
    }


def stability(fields: Mapping[str, Any], nonfinite: bool) -> float:
    """Numerical health, 0 to 1: 0 when anything was not finite, else the product

    (1 − u) · min(1, 10 / g) · min(1, 5 / r)

    with u the share of steps whose log-probability was below −50, g the largest gradient norm
    before clipping (10 is an explosion) and r the largest ratio or the inverse of the smallest.
    """
    if nonfinite:
        return 0.0
    steps = fields.get("usable_actor_timesteps", 0) / max(fields.get("decision_density", 1), 1e-9)
    underflow = fields.get("log_prob_underflow_count", 0) / steps if steps else 0.0
    norm = fields.get("pre_clip_grad_norm", 0.0)
    ratio = max(fields.get("ratio_max", 1.0), 1.0 / max(fields.get("ratio_min", 1.0), 1e-30))
    score = (1.0 - min(1.0, underflow)) * min(1.0, health.GRAD_NORM_CRITICAL / max(norm, 1e-30))
    return float(score * min(1.0, RATIO_LIMIT / max(ratio, 1.0)))
