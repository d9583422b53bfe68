"""Rewards, actions and counterfactual accuracies of each environment (Simic)."""

from __future__ import annotations

from typing import Any

from esper_exporter.metrics.families.host_metrics import PERCENT, env_field
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import gauge

DECISION = "event:ANALYTICS_SNAPSHOT[kind=last_action]."


def _last_action_success(roots: Any) -> bool | None:
    """Whether the last action succeeded, where an event or a given snapshot said so."""
    env, run = roots["env"], roots["run"]
    reported = run.given or env.env_id in run.envs_with_success
    return env.last_action_success if reported and env.total_actions else None


def _rewarded(attribute: str) -> Any:
    """A sum over the rewards of the running episode; there is none before the first."""

    def read(roots: Any) -> Any:
        env = roots["env"]
        return getattr(env, attribute) if env.reward_history or roots["run"].given else None

    return read


def _gaming_steps(roots: Any) -> Any:
    env = roots["env"]
    parts = env.reward_components
    if parts.ratio_penalty is None and parts.alpha_shock is None:
        return None
    return env.gaming_trigger_count


def _reward(part: str, field: str, text: str) -> Metric:
    def read(roots: Any) -> Any:
        env = roots["env"]
        return getattr(env.reward_components, field) if env.total_reward_steps else None

    return env_field(
        f"esper_simic_reward_{part}", f"reward_components.{field}", f"Reward: {text}.", read=read
    )


def _told_reward(part: str, field: str, text: str, scale: float = 1.0) -> Metric:
    """A part of the last reward that the snapshot's breakdown has no room for."""

    def read(roots: Any) -> Any:
        rewards = roots["run"].last_rewards.get(roots["env"].env_id)
        return None if rewards is None else getattr(rewards, field)

    return gauge(
        "env",
        f"esper_simic_reward_{part}",
        f"{DECISION}reward_components.{field}",
        f"Reward: {text}.",
        scale=scale,
        read=read,
    )


def _accuracy_with_all(on: bool) -> Any:
    """The counterfactual accuracy with every seed on or off, where that was evaluated."""

    def read(roots: Any) -> Any:
        matrix = roots["env"].counterfactual_matrix
        return matrix.get_accuracy((on,) * len(matrix.slot_ids)) if matrix.slot_ids else None

    return read


def _synergy(roots: Any) -> Any:
    """Needs every accuracy that it is computed from: one not evaluated counts as 0 in the schema's
    own sum, and would show as synergy."""
    matrix = roots["env"].counterfactual_matrix
    if None in (_accuracy_with_all(False)(roots), _accuracy_with_all(True)(roots)):
        return None
    if len(matrix.individual_contributions()) < len(matrix.slot_ids):
        return None
    return matrix.total_synergy()


def _best_reward(roots: Any) -> Any:
    best = roots["env"].best_reward
    return None if best == float("-inf") else best


ENV_METRICS: tuple[Metric, ...] = (
    env_field(
        "esper_simic_env_cumulative_reward",
        "cumulative_reward",
        "Sum of rewards in the running episode.",
        read=_rewarded("cumulative_reward"),
    ),
    env_field(
        "esper_simic_env_peak_cumulative_reward",
        "peak_cumulative_reward",
        "Cumulative reward at the moment of the episode's best accuracy.",
        read=_rewarded("peak_cumulative_reward"),
    ),
    env_field(
        "esper_simic_env_best_reward",
        "best_reward",
        "Best single reward of the running episode; absent where it is not tracked.",
        read=_best_reward,
    ),
    env_field(
        "esper_simic_env_best_reward_epoch",
        "best_reward_epoch",
        "Epoch of the best single reward; absent where it is not tracked.",
        zero_is_absent=True,
    ),
    env_field(
        "esper_simic_env_reward_steps",
        "total_reward_steps",
        "Steps rewarded in the episode; absent before the first.",
        zero_is_absent=True,
    ),
    env_field(
        "esper_simic_env_gaming_steps",
        "gaming_trigger_count",
        "Steps of the episode in which an anti-gaming penalty struck.",
        read=_gaming_steps,
    ),
    env_field(
        "esper_tamiyo_env_actions",
        "total_actions",
        "Actions taken in the running episode; absent before the first.",
        zero_is_absent=True,
    ),
    env_field(
        "esper_tamiyo_env_last_action_success",
        "last_action_success",
        "1 if the last action could be carried out.",
        read=_last_action_success,
    ),
    _reward("step", "total", "the last step's total"),
    _reward("base_accuracy_delta", "base_acc_delta", "part for the accuracy's change"),
    _reward("bounded_attribution", "bounded_attribution", "part for the seed's own contribution"),
    _reward("seed_contribution", "seed_contribution", "contribution of the seed, percent points"),
    _reward("escrow_credit_previous", "escrow_credit_prev", "credit in escrow before the step"),
    _reward("escrow_credit_target", "escrow_credit_target", "credit that escrow moves towards"),
    _reward("escrow_delta", "escrow_delta", "part paid out of escrow"),
    _reward("escrow_credit_next", "escrow_credit_next", "credit in escrow after the step"),
    _reward("escrow_forfeit", "escrow_forfeit", "credit taken back at the end"),
    _reward("compute_rent", "compute_rent", "rent for active seeds, negative"),
    _reward("alpha_shock", "alpha_shock", "penalty for a jump of alpha"),
    _reward("ratio_penalty", "ratio_penalty", "penalty for suspicious attribution"),
    _reward("stage_bonus", "stage_bonus", "bonus for an advanced stage"),
    _reward("fossilize_terminal_bonus", "fossilize_terminal_bonus", "bonus for fossilising"),
    _reward("blending_warning", "blending_warning", "warning while blending"),
    _reward("holding_warning", "holding_warning", "warning while holding"),
    _reward("hindsight_credit", "hindsight_credit", "credit when a beneficiary fossilises"),
    _reward("scaffolds", "scaffold_count", "seeds that count as scaffolds"),
    _reward("scaffold_delay_epochs", "avg_scaffold_delay", "mean epochs since scaffolding"),
    env_field(
        "esper_simic_reward_accuracy_ratio",
        "reward_components.val_acc",
        "Validation accuracy that the last reward was computed with, 0 to 1.",
        scale=PERCENT,
        read=lambda roots: (
            roots["env"].reward_components.val_acc if roots["env"].total_reward_steps else None
        ),
    ),
    env_field(
        "esper_simic_reward_stable_accuracy_ratio",
        "reward_components.stable_val_acc",
        "Stable validation accuracy that escrow goes by, 0 to 1.",
        scale=PERCENT,
    ),
    _told_reward("progress", "progress_since_germination", "progress since germination", PERCENT),
    _told_reward("attribution_discount", "attribution_discount", "discount on the attribution"),
    _told_reward("pbrs_bonus", "pbrs_bonus", "bonus of potential-based shaping"),
    _told_reward("synergy_bonus", "synergy_bonus", "bonus for seeds that help each other"),
    _told_reward("action_shaping", "action_shaping", "part for the action itself"),
    _told_reward("terminal_bonus", "terminal_bonus", "bonus at the episode's end"),
    _told_reward("occupancy_rent", "occupancy_rent", "rent for occupied slots"),
    _told_reward("fossilized_rent", "fossilized_rent", "rent for fossilised seeds"),
    _told_reward("timing_discount", "timing_discount", "discount for germinating late"),
    _told_reward("drip", "drip_this_epoch", "part paid out drop by drop"),
    _told_reward("drip_immediate_bonus", "drip_immediate_bonus", "part paid at once"),
    _told_reward("drip_deferred", "drip_deferred_total", "part still to be paid"),
    _told_reward("drip_sources", "num_drip_sources", "seeds that it is paid for"),
    _told_reward(
        "contributing_fossilized", "num_contributing_fossilized", "fossilised seeds that contribute"
    ),
    _told_reward("active_seeds", "n_active_seeds", "active seeds it was computed with"),
    _told_reward("growth_ratio", "growth_ratio", "growth it was computed with"),
    _told_reward(
        "germination_accuracy_ratio",
        "acc_at_germination",
        "accuracy when the seed germinated, 0 to 1",
        PERCENT,
    ),
    _told_reward(
        "baseline_accuracy_ratio",
        "host_baseline_acc",
        "accuracy of the host without the seed, 0 to 1",
        PERCENT,
    ),
    env_field(
        "esper_simic_counterfactual_duration_seconds",
        "counterfactual_matrix.compute_time_ms",
        "How long the last counterfactual matrix took.",
        scale=0.001,
        zero_is_absent=True,
    ),
    gauge(
        "env",
        "esper_simic_counterfactual_baseline_accuracy_ratio",
        "derived: accuracy with every seed off, from the counterfactual matrix",
        "Accuracy with every seed switched off, 0 to 1.",
        scale=PERCENT,
        read=_accuracy_with_all(False),
    ),
    gauge(
        "env",
        "esper_simic_counterfactual_combined_accuracy_ratio",
        "derived: accuracy with every seed on, from the counterfactual matrix",
        "Accuracy with every seed switched on, 0 to 1.",
        scale=PERCENT,
        read=_accuracy_with_all(True),
    ),
    gauge(
        "env",
        "esper_simic_counterfactual_synergy_ratio",
        "derived: combined accuracy less baseline and single contributions",
        "Accuracy that the seeds give only together, 0 to 1; negative when they harm each other."
        " Absent unless each was also evaluated alone.",
        scale=PERCENT,
        read=_synergy,
    ),
)
