"""From an update's numbers on the host to the fields of a policy update."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from esper_exporter import health
from esper_exporter.contract.vocabulary import HEAD_ENTROPY_COEFFICIENTS, OPS
from esper_exporter.probes.torch.action_heads import Heads
from esper_exporter.probes.torch.minibatch import JOINT, PER_HEAD, Given
from esper_exporter.probes.torch.rollout import MOMENTS

Array = np.ndarray[Any, np.dtype[np.float64]]
Fields = dict[str, Any]

RATIO_LIMIT = 5.0
DETERMINISTIC = 0.95
"""A policy with at least this determinism hardly chooses (plan, C.5)."""

_LARGEST = frozenset({"ratio_max", "kl_max", "log_prob_max"})
_SMALLEST = frozenset({"ratio_min", "log_prob_min"})


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


class _Table:
    """The measured vectors of an update, joined over minibatches, head by head."""

    def __init__(self, measured: Sequence[tuple[Given, Array]]) -> None:
        by_head: dict[str, list[Array]] = {}
        together = []
        for given, vector in measured:
            count = len(given.heads)
            table = vector[: count * len(PER_HEAD)].reshape(len(PER_HEAD), count)
            for place, head in enumerate(given.heads):
                by_head.setdefault(head, []).append(table[:, place])
            together.append(vector[count * len(PER_HEAD) :])
        self.heads = {
            head: _joined(PER_HEAD, np.stack(columns)) for head, columns in by_head.items()
        }
        self.joint = _joined(JOINT, np.stack(together))
        self.with_old = _in_all(measured, "with_old")
        self.with_entropy = _in_all(measured, "with_entropy")


def _in_all(measured: Sequence[tuple[Given, Array]], field: str) -> set[str]:
    """The heads for which every minibatch has this."""
    return set.intersection(*(set(getattr(given, field)) for given, _ in measured))


def _joined(names: Sequence[str], rows: Array) -> dict[str, float]:
    found = {}
    for place, name in enumerate(names):
        column = rows[:, place]
        join = np.max if name in _LARGEST else np.min if name in _SMALLEST else np.sum
        found[name] = float(join(column))
    return found


def policy_fields(
    heads: Heads, measured: Sequence[tuple[Given, Array]], infinite: Collection[str] = ()
) -> Fields:
    """Trust region, heads and log-probabilities, over all minibatches of an update.

    ``infinite`` are the heads whose logits were infinite: their log-probabilities are NaN for
    that reason.
    """
    table = _Table(measured)
    steps = table.joint["steps"]
    found: Fields = {"valid_sample_ratio": _share(steps, table.joint["all_steps"])}
    found["head_nan_detected"] = {
        head: own["nan"] > 0 and head not in infinite for head, own in table.heads.items()
    }
    found["head_inf_detected"] = {
        head: own["inf"] > 0 or head in infinite for head, own in table.heads.items()
    }
    if not steps:
        return found
    for head, own in table.heads.items():
        name = f"head_{head}_"
        found[name + "active_ratio"] = own["active"] / steps
        found[name + "learnable_fraction"] = own["learnable"] / steps
        if own["active"] and head in table.with_old:
            found[name + "ratio_max"] = own["ratio_max"]
            found[name + "kl"] = own["kl"] / own["active"]
            found[name + "clip_fraction"] = own["clipped"] / own["active"]
    found["causal_mask_coverage"] = {
        head: found[f"head_{head}_active_ratio"] for head in table.heads
    }
    whole = table.heads.keys() >= heads.keys()
    found |= _entropies(heads, table, whole)
    found |= _step_fields(table.joint)
    if whole and table.with_old >= heads.keys():
        found |= _ratio_fields(table.joint)
    return found


def _entropies(heads: Heads, table: _Table, whole: bool) -> Fields:
    """Entropies, in nats and, for heads that choose, as a share of their maximum."""
    found: Fields = {}
    steps = table.joint["steps"]
    nats = {
        head: own["entropy"] / steps
        for head, own in table.heads.items()
        if head in table.with_entropy
    }
    weighted, chosen, most = 0.0, 0.0, 0.0
    for head, entropy in nats.items():
        limit = math.log(heads[head] or 1)
        if limit:
            # As the real system reports it: 0 where the head had no choice that mattered.
            own = table.heads[head]["choice_entropy"] / steps / limit
            found[f"head_{head}_entropy"] = own
            weighted += HEAD_ENTROPY_COEFFICIENTS.get(head, 1.0) * entropy / limit
            chosen += entropy
            most += limit
    if nats:
        found["head_entropy_nats"] = nats
    if not whole or len(nats) < len(heads):
        return found
    found["policy_entropy_nats"] = sum(nats.values())
    if most:
        found["entropy"] = weighted
        found["policy_determinism"] = 1.0 - chosen / most
        found["entropy_collapsed"] = found["policy_determinism"] > DETERMINISTIC
    return found


def _step_fields(joint: Mapping[str, float]) -> Fields:
    steps = joint["steps"]
    return {
        "log_prob_underflow_count": int(joint["underflows"]),
        "log_prob_min": joint["log_prob_min"],
        "log_prob_max": joint["log_prob_max"],
        "forced_step_ratio": joint["forced"] / steps,
        "decision_density": 1.0 - joint["forced"] / steps,
        "usable_actor_timesteps": int(steps - joint["forced"]),
    }


def _ratio_fields(joint: Mapping[str, float]) -> Fields:
    steps = joint["steps"]
    mean = joint["ratio_offset"] / steps
    spread = max(0.0, joint["ratio_offset_square"] / steps - mean * mean)
    clipped = joint["clipped_above"] + joint["clipped_below"]
    return {
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
    }


class Sample:
    """The moments of one sample, as `esper_exporter.probes.torch.rollout.moments` returns them."""

    def __init__(self, arrays: Array) -> None:
        values = dict(zip(MOMENTS, (float(value) for value in arrays), strict=True))
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
        """Third standardised moment; None without variance."""
        return self._third / self.variance**1.5 if self.variance > 1e-20 else None

    @property
    def kurtosis(self) -> float | None:
        """Excess over a normal distribution's; None without variance."""
        return self._fourth / self.variance**2 - 3.0 if self.variance > 1e-20 else None


def rollout_fields(arrays: Mapping[str, Array], heads: Heads) -> Fields:
    """Values, returns, advantages, TD errors and actions of an update's rollout, where given."""
    samples = {
        name: Sample(arrays[name])
        for name in ("values", "returns", "errors", "advantages", "raw_advantages", "td_errors")
        if name in arrays
    }
    found: Fields = {}
    if (values := samples.get("values")) is not None and values.count:
        found |= {
            "value_mean": values.mean,
            "value_std": values.std,
            "value_min": values.min,
            "value_max": values.max,
        }
    if (returns := samples.get("returns")) is not None and returns.count:
        found |= {
            "return_mean": returns.mean,
            "return_std": returns.std,
            "return_variance": returns.variance,
            "return_skewness": returns.skewness,
            "ev_return_variance": returns.variance,
            **dict(
                zip(
                    ("return_p10", "return_p50", "return_p90"),
                    arrays["quantiles"].tolist(),
                    strict=True,
                )
            ),
        }
    if (errors := samples.get("errors")) is not None and errors.count:
        found |= _error_fields(samples, errors, arrays)
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
    if "action_mix" in arrays:
        combinations, commonest, count = arrays["action_mix"].tolist()
        found["action_diversity"] = int(combinations)
        found["dominant_action_ratio"] = _share(commonest, count)
    if "ops" in arrays and heads.get("op") == len(OPS) and (count := float(arrays["ops"].sum())):
        found["op_distribution"] = {
            op: taken / count for op, taken in zip(OPS, arrays["ops"].tolist(), strict=True)
        }
    return found


def _error_fields(
    samples: Mapping[str, Sample], errors: Sample, arrays: Mapping[str, Array]
) -> Fields:
    """How well the critic predicted the returns."""
    values, returns = samples["values"], samples["returns"]
    found: Fields = {
        "value_prediction_error_mean": errors.mean,
        "value_prediction_error_std": errors.std,
    }
    together = values.std * returns.std
    if together > 0:
        correlation = float(arrays["covariance"][0]) / together
        found["v_return_correlation"] = found["value_target_correlation"] = correlation
    if returns.variance > 0:
        found["explained_variance"] = 1.0 - errors.variance / returns.variance
        found["value_nrmse"] = math.sqrt(errors.variance + errors.mean**2) / returns.std
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
    """Numerical health, 0 to 1: 0 when any value was not finite, else the product

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
