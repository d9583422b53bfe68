"""The probe's numbers once more: float64, loops, one step at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Mapping[str, Sequence[float]]
Flags = Mapping[str, Sequence[bool]]


def policy(
    heads: Mapping[str, int],
    new: Rows,
    old: Rows,
    entropy: Rows,
    active: Flags,
    learnable: Flags,
    valid: Sequence[bool],
    clip: float,
) -> dict[str, Any]:
    """Every field of C.2, C.4 and the ratio statistics of one minibatch."""
    steps = [t for t, seen in enumerate(valid) if seen]
    found: dict[str, Any] = {"valid_sample_ratio": len(steps) / len(valid)}
    ratios, log_ratios, forced, under = [], [], 0, 0
    for t in steps:
        mattering = [head for head in heads if active[head][t]]
        log_ratios.append(sum(new[head][t] - old[head][t] for head in mattering))
        ratios.append(math.exp(log_ratios[-1]))
        forced += not any(learnable[head][t] for head in heads)
        under += any(new[head][t] < -50 for head in mattering)
    pairs = list(zip(ratios, log_ratios, strict=True))
    kl = [r - 1 - lr for r, lr in pairs]
    mean = sum(ratios) / len(ratios)
    above, below = sum(r > 1 + clip for r in ratios), sum(r < 1 - clip for r in ratios)
    n = len(steps)
    found |= {
        "ratio_mean": mean,
        "ratio_std": math.sqrt(sum((r - mean) ** 2 for r in ratios) / n),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "joint_ratio_max": max(ratios),
        "kl_divergence": sum(kl) / n,
        "approx_kl_max": max(kl),
        "kl_reverse": sum(r * lr - r + 1 for r, lr in pairs) / n,
        "clip_fraction": (above + below) / n,
        "clip_fraction_positive": above / n,
        "clip_fraction_negative": below / n,
        "trust_region_violations": above + below,
        "log_prob_underflow_count": under,
        "forced_step_ratio": forced / n,
        "decision_density": 1 - forced / n,
        "usable_actor_timesteps": n - forced,
    }
    own = [new[head][t] for head in heads for t in steps if active[head][t]]
    found |= {"log_prob_min": min(own), "log_prob_max": max(own)}
    nats, most = 0.0, 0.0
    found["head_entropy_nats"], found["causal_mask_coverage"] = {}, {}
    for head, choices in heads.items():
        mine = [t for t in steps if active[head][t]]
        mean_entropy = sum(entropy[head][t] for t in steps) / n
        found["head_entropy_nats"][head] = mean_entropy
        found["causal_mask_coverage"][head] = len(mine) / n
        found[f"head_{head}_active_ratio"] = len(mine) / n
        found[f"head_{head}_learnable_fraction"] = sum(learnable[head][t] for t in steps) / n
        if choices > 1:
            where_choice = sum(entropy[head][t] for t in steps if learnable[head][t]) / n
            found[f"head_{head}_entropy"] = where_choice / math.log(choices)
            nats, most = nats + mean_entropy, most + math.log(choices)
        if mine:
            logs = [new[head][t] - old[head][t] for t in mine]
            found[f"head_{head}_ratio_max"] = max(math.exp(x) for x in logs)
            found[f"head_{head}_kl"] = sum(math.exp(x) - 1 - x for x in logs) / len(mine)
            found[f"head_{head}_clip_fraction"] = sum(
                abs(math.exp(x) - 1) > clip for x in logs
            ) / len(mine)
    found["policy_determinism"] = 1 - nats / most
    return found


def spread(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))


def standardised(values: Sequence[float], power: int) -> float:
    mean, std = spread(values)
    return sum(((v - mean) / std) ** power for v in values) / len(values)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    where = share * (len(ordered) - 1)
    low = math.floor(where)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (where - low) * (ordered[high] - ordered[low])


def rollout(
    values: Sequence[float],
    returns: Sequence[float],
    advantages: Sequence[float],
    raw: Sequence[float],
    td_errors: Sequence[float],
    actions: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Every field of C.3, C.5 and the advantage, return and value statistics."""
    errors = [v - r for v, r in zip(values, returns, strict=True)]
    (value_mean, value_std), (return_mean, return_std) = spread(values), spread(returns)
    error_mean, error_std = spread(errors)
    pairs = zip(values, returns, strict=True)
    together = sum((v - value_mean) * (r - return_mean) for v, r in pairs) / len(values)
    correlation = together / value_std / return_std
    combinations = Counter(zip(*actions.values(), strict=True))
    return {
        "value_mean": value_mean,
        "value_std": value_std,
        "value_min": min(values),
        "value_max": max(values),
        "return_mean": return_mean,
        "return_std": return_std,
        "return_variance": return_std**2,
        "return_skewness": standardised(returns, 3),
        "return_p10": percentile(returns, 0.1),
        "return_p50": percentile(returns, 0.5),
        "return_p90": percentile(returns, 0.9),
        "value_prediction_error_mean": error_mean,
        "value_prediction_error_std": error_std,
        "explained_variance": 1 - error_std**2 / return_std**2,
        "value_nrmse": math.sqrt(sum(e * e for e in errors) / len(errors)) / return_std,
        "v_return_correlation": correlation,
        "value_target_correlation": correlation,
        "advantage_mean": spread(advantages)[0],
        "advantage_std": spread(advantages)[1],
        "advantage_skewness": standardised(advantages, 3),
        "advantage_kurtosis": standardised(advantages, 4) - 3,
        "advantage_min": min(advantages),
        "advantage_max": max(advantages),
        "advantage_positive_ratio": sum(a > 0 for a in advantages) / len(advantages),
        "advantage_raw_mean": spread(raw)[0],
        "advantage_raw_std": spread(raw)[1],
        "td_error_mean": spread(td_errors)[0],
        "td_error_std": spread(td_errors)[1],
        "bellman_error": sum(e * e for e in td_errors) / len(td_errors),
        "action_diversity": len(combinations),
        "dominant_action_ratio": max(combinations.values()) / len(values),
    }
