"""The plan's fields computed anew, in float64 and with numpy, from tensors that the trainer had."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from esper_exporter.contract.vocabulary import HEADS, OPS

Array = np.ndarray[Any, np.dtype[np.float64]]


def array(tensor: Any) -> Array:
    return tensor.detach().numpy().astype(np.float64)


def layer_of(name: str) -> str:
    return name.rpartition(".")[0] or name


def rollout(dump: dict[str, Any]) -> dict[str, float]:
    reported = dump["rollout"][0]
    values, returns = array(reported["values"]), array(reported["returns"])
    error = values - returns
    return {
        "esper_tamiyo_value_prediction_error_mean": error.mean(),
        "esper_tamiyo_value_prediction_error_std": error.std(),
        "esper_tamiyo_td_error_mean": array(reported["td_errors"]).mean(),
        "esper_tamiyo_return_mean": returns.mean(),
        "esper_tamiyo_return_std": returns.std(ddof=1),
        "esper_tamiyo_value_target_correlation": float(np.corrcoef(values, returns)[0, 1]),
        "esper_tamiyo_valid_sample_ratio": sum(reported["counts"]) / reported["most"],
    }


def trust_region(dump: dict[str, Any]) -> dict[str, Any]:
    """Ratios over all inner epochs; a head counts where it mattered."""
    clip = dump["ratios"][0]["clip_ratio"]
    joint_kl, reverse, violations, below = [], [], 0, 0
    by_head: dict[str, list[Array]] = {head: [] for head in HEADS}
    active: dict[str, list[Array]] = {head: [] for head in HEADS}
    steps = 0
    for each in dump["ratios"]:
        causal, whole, low = 0.0, 0.0, np.zeros(len(each["log_probs"]["op"]), dtype=bool)
        for head in HEADS:
            log_ratio = array(each["log_probs"][head]) - array(each["old_log_probs"][head])
            mask = array(each["head_masks"][head]) > 0
            by_head[head].append(log_ratio[mask])
            active[head].append(mask.astype(np.float64))
            causal = causal + np.where(mask, log_ratio, 0.0)
            whole = whole + log_ratio
            low |= mask & (array(each["log_probs"][head]) < -50.0)
        ratio = np.exp(causal)
        joint_kl.append(np.expm1(causal) - causal)
        reverse.append(ratio * causal - np.expm1(causal))
        violations += int((np.abs(np.expm1(whole)) > clip).sum())
        below += int(low.sum())
        steps += len(low)
    found: dict[str, Any] = {
        "esper_tamiyo_kl_divergence_max_nats": np.concatenate(joint_kl).max(),
        "esper_tamiyo_kl_reverse_nats": np.concatenate(reverse).mean(),
        "esper_tamiyo_update_trust_region_violations": violations,
        "esper_tamiyo_update_log_prob_underflows": below,
    }
    for head in HEADS:
        log_ratio = np.concatenate(by_head[head])
        key = ("head", head)
        found["esper_tamiyo_head_active_ratio", key] = np.concatenate(active[head]).mean()
        if len(log_ratio):
            kl = np.expm1(log_ratio) - log_ratio
            found["esper_tamiyo_head_kl_nats", key] = kl.mean()
            clipped = np.abs(np.expm1(log_ratio)) > clip
            found["esper_tamiyo_head_clipped_ratio", key] = clipped.mean()
    return found


def gradients(dump: dict[str, Any]) -> dict[str, Any]:
    """Of the step with the largest norm; shares over all steps, zeros of the first."""
    totals, limit = [], dump["limit"][0]
    for grads in dump["grads"]:
        totals.append(math.sqrt(sum(float(np.square(array(g)).sum()) for g in grads.values())))
    worst = dump["grads"][int(np.argmax(totals))]
    layers: dict[str, float] = {}
    for name, grad in worst.items():
        square = float(np.square(array(grad)).sum())
        layers[layer_of(name)] = math.sqrt(layers.get(layer_of(name), 0.0) ** 2 + square)
    first = dump["grads"][0]
    zeros = sum(int((array(g) == 0).sum()) for g in first.values())
    learning = [norm for norm in layers.values() if norm > 0]
    found: dict[str, Any] = {
        "esper_tamiyo_grad_norm_pre_clip": max(totals),
        "esper_tamiyo_grad_clipped_ratio": np.mean([total > limit for total in totals]),
        "esper_tamiyo_gradient_utilization_ratio": np.mean([min(t, limit) / limit for t in totals]),
        "esper_tamiyo_grad_zero_ratio": zeros / sum(g.numel() for g in first.values()),
        "esper_tamiyo_layer_grad_norm_spread": max(learning) / min(learning),
        "esper_tamiyo_grad_norm_step": int(np.argmax(totals)) + 1,
    }
    found |= {("esper_tamiyo_layer_grad_norm", ("layer", n)): v for n, v in layers.items()}
    before, after = dump["before"][0], dump["after"][0]
    change = sum(float(np.square(array(after[n]) - array(before[n])).sum()) for n in before)
    found["esper_tamiyo_weight_change_norm"] = math.sqrt(change)
    return found


def policy(dump: dict[str, Any]) -> dict[str, Any]:
    last, data = dump["losses"][-1], dump["data"][0]
    free = array(last["forced_mask"]) == 0
    valid = data["valid_mask"].numpy()
    chosen = np.stack([data[f"{head}_actions"].numpy()[valid] for head in HEADS], 1)
    _, counts = np.unique(chosen, axis=0, return_counts=True)
    ops = np.bincount(data["op_actions"].numpy()[valid], minlength=len(OPS)) / len(chosen)
    found: dict[str, Any] = {
        "esper_tamiyo_policy_determinism_ratio": 1.0 - array(last["entropy"]["op"])[free].mean(),
        "esper_tamiyo_action_diversity": len(counts),
        "esper_tamiyo_dominant_action_ratio": counts.max() / len(chosen),
    }
    return found | {
        ("esper_tamiyo_op_probability_ratio", ("op", op)): share
        for op, share in zip(OPS, ops, strict=True)
    }


def everything(dump: dict[str, Any]) -> dict[Any, float]:
    """Metric, or (metric, (label, value)) → number."""
    return rollout(dump) | trust_region(dump) | gradients(dump) | policy(dump)
