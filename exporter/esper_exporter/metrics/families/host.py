"""Tolaria (host training) and Simic (reward, fitness, attribution), per environment and run."""

from __future__ import annotations

from typing import Any

from esper_exporter.contract.vocabulary import ENV_STATUSES
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import gauge, states

PERCENT = 0.01
ENV = "envs[{env_id}]."
EPOCH = "event:EPOCH_COMPLETED."
DECISION = "event:ANALYTICS_SNAPSHOT[kind=last_action]."


def _when(name: str, attribute: str) -> Any:
    def read(roots: Any) -> Any:
        moment = getattr(roots[name], attribute)
        return None if moment is None else moment.timestamp()

    return read


def _measured(attribute: str) -> Any:
    """A value of the running episode: there is none before the episode's first epoch."""

    def read(roots: Any) -> Any:
        env = roots["env"]
        return getattr(env, attribute) if env.accuracy_history else None

    return read


def _after_epoch(attribute: str) -> Any:
    """A value that epochs bring up to date, and that stays between two episodes."""

    def read(roots: Any) -> Any:
        env = roots["env"]
        return getattr(env, attribute) if env.last_update or roots["run"].given else None

    return read


def _rewarded(attribute: str) -> Any:
    """A sum over the rewards of the running episode; there is none before the first."""

    def read(roots: Any) -> Any:
        env = roots["env"]
        return getattr(env, attribute) if env.reward_history or roots["run"].given else None

    return read


def _seeded(attribute: str) -> Any:
    """A count of the environment's seeds, once anything was reported of them."""

    def read(roots: Any) -> Any:
        env = roots["env"]
        return getattr(env, attribute) if roots["run"].has_seeds(env.env_id) else None

    return read


def _growth(roots: Any) -> Any:
    env = roots["env"]
    if not env.host_params or not roots["run"].has_seeds(env.env_id):
        return None
    return env.growth_ratio


def _gaming_steps(roots: Any) -> Any:
    env = roots["env"]
    parts = env.reward_components
    if parts.ratio_penalty is None and parts.alpha_shock is None:
        return None
    return env.gaming_trigger_count


def _env(name: str, path: str, help: str, **options: Any) -> Metric:
    return gauge("env", name, ENV + path, help, **options)


def _from_epoch(name: str, field: str, help: str, **options: Any) -> Metric:
    return gauge("env", name, EPOCH + field, help, **options)


def _reward(part: str, field: str, text: str) -> Metric:
    def read(roots: Any) -> Any:
        env = roots["env"]
        return getattr(env.reward_components, field) if env.total_reward_steps else None

    return _env(
        f"esper_simic_reward_{part}", f"reward_components.{field}", f"Reward: {text}.", read=read
    )


def _told_reward(part: str, field: str, text: str, scale: float = 1.0) -> Metric:
    """A part of the last reward that the snapshot's breakdown has no room for."""

    def read(roots: Any) -> Any:
        told = roots["run"].last_rewards.get(roots["env"].env_id)
        return None if told is None else getattr(told, field)

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
    _env(
        "esper_tolaria_host_accuracy_ratio",
        "host_accuracy",
        "Validation accuracy of an environment's host, 0 to 1. Absent between two episodes.",
        scale=PERCENT,
        read=_measured("host_accuracy"),
    ),
    _env(
        "esper_tolaria_host_loss",
        "host_loss",
        "Validation loss of an environment's host.",
        read=_measured("host_loss"),
    ),
    _env(
        "esper_tolaria_env_epoch",
        "current_epoch",
        "Epoch of the running episode.",
        read=_measured("current_epoch"),
    ),
    _env(
        "esper_tolaria_env_host_params",
        "host_params",
        "Parameters of the host.",
        zero_is_absent=True,
    ),
    _env(
        "esper_tolaria_env_best_accuracy_ratio",
        "best_accuracy",
        "Best validation accuracy of the running episode, 0 to 1.",
        scale=PERCENT,
        read=_measured("best_accuracy"),
    ),
    _env(
        "esper_tolaria_env_best_accuracy_epoch",
        "best_accuracy_epoch",
        "Epoch of the running episode's best accuracy.",
        read=_measured("best_accuracy_epoch"),
    ),
    _env(
        "esper_tolaria_env_best_accuracy_episode",
        "best_accuracy_episode",
        "Episode that the best accuracy belongs to.",
        read=_measured("best_accuracy_episode"),
    ),
    _env(
        "esper_tolaria_env_epochs_since_improvement",
        "epochs_since_improvement",
        "Epochs since the accuracy last improved.",
        read=_measured("epochs_since_improvement"),
    ),
    _env(
        "esper_tolaria_env_stall_epochs",
        "stall_counter",
        "Epochs in a row in which the environment counted as stalling.",
        read=_after_epoch("stall_counter"),
    ),
    _env(
        "esper_tolaria_env_degraded_epochs",
        "degraded_counter",
        "Epochs in a row in which the environment lost accuracy.",
        read=_after_epoch("degraded_counter"),
    ),
    states(
        "env",
        "esper_tolaria_env_status",
        "status",
        tuple(ENV_STATUSES),
        "derived: envs[{env_id}].status",
        "Status of an environment: 1 for the one that holds.",
        _after_epoch("status"),
    ),
    gauge(
        "env",
        "esper_tolaria_env_last_epoch_timestamp_seconds",
        "derived: time of the environment's last EPOCH_COMPLETED",
        "When the environment last finished an epoch.",
        read=_when("env", "last_update"),
    ),
    gauge(
        "env",
        "esper_tolaria_env_last_rollback_timestamp_seconds",
        "derived: time of the environment's last rollback",
        "When the governor last rolled the environment back; absent if never.",
        read=_when("env", "rollback_timestamp"),
    ),
    _from_epoch(
        "esper_tolaria_train_loss", "train_loss", "Training loss of an environment's host."
    ),
    _from_epoch(
        "esper_tolaria_train_accuracy_ratio",
        "train_accuracy",
        "Training accuracy of an environment's host, 0 to 1.",
        scale=PERCENT,
    ),
    _from_epoch(
        "esper_tolaria_host_grad_norm", "host_grad_norm", "Gradient norm of an environment's host."
    ),
    _from_epoch(
        "esper_tolaria_host_grad_norm_pre_clip",
        "host_grad_norm_pre_clip",
        "Gradient norm of an environment's host before clipping.",
    ),
    _from_epoch(
        "esper_tolaria_host_train_loss", "host_train_loss", "Training loss as the host reports it."
    ),
    _from_epoch(
        "esper_tolaria_host_learning_rate", "host_lr", "Learning rate of an environment's host."
    ),
    _env(
        "esper_kasmina_env_active_seeds",
        "active_seed_count",
        "Active seeds of an environment.",
        read=_seeded("active_seed_count"),
    ),
    _env(
        "esper_kasmina_env_fossilized_seeds",
        "fossilized_count",
        "Seeds fossilised in the running episode.",
        read=_seeded("fossilized_count"),
    ),
    _env(
        "esper_kasmina_env_pruned_seeds",
        "pruned_count",
        "Seeds pruned in the running episode.",
        read=_seeded("pruned_count"),
    ),
    _env(
        "esper_kasmina_env_fossilized_params",
        "fossilized_params",
        "Parameters added for good in the running episode.",
        read=_seeded("fossilized_params"),
    ),
    gauge(
        "env",
        "esper_kasmina_env_growth_ratio",
        "derived: (host_params + fossilized_params) / host_params of the environment",
        "Size of an environment's network over its host's; 1.2 is 20 % larger.",
        read=_growth,
    ),
    _env(
        "esper_simic_env_cumulative_reward",
        "cumulative_reward",
        "Sum of rewards in the running episode.",
        read=_rewarded("cumulative_reward"),
    ),
    _env(
        "esper_simic_env_peak_cumulative_reward",
        "peak_cumulative_reward",
        "Cumulative reward at the moment of the episode's best accuracy.",
        read=_rewarded("peak_cumulative_reward"),
    ),
    _env(
        "esper_simic_env_best_reward",
        "best_reward",
        "Best single reward of the running episode; absent where it is not tracked.",
        read=_best_reward,
    ),
    _env(
        "esper_simic_env_best_reward_epoch",
        "best_reward_epoch",
        "Epoch of the best single reward; absent where it is not tracked.",
        zero_is_absent=True,
    ),
    _env(
        "esper_simic_env_reward_steps",
        "total_reward_steps",
        "Steps rewarded in the episode; absent before the first.",
        zero_is_absent=True,
    ),
    _env(
        "esper_simic_env_gaming_steps",
        "gaming_trigger_count",
        "Steps of the episode in which an anti-gaming penalty struck.",
        read=_gaming_steps,
    ),
    _env(
        "esper_tamiyo_env_actions",
        "total_actions",
        "Actions taken in the running episode; absent before the first.",
        zero_is_absent=True,
    ),
    _env(
        "esper_tamiyo_env_last_action_success",
        "last_action_success",
        "1 if the last action could be carried out.",
        read=lambda roots: roots["env"].last_action_success if roots["env"].total_actions else None,
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
    _env(
        "esper_simic_reward_accuracy_ratio",
        "reward_components.val_acc",
        "Validation accuracy that the last reward was computed with, 0 to 1.",
        scale=PERCENT,
        read=lambda roots: (
            roots["env"].reward_components.val_acc if roots["env"].total_reward_steps else None
        ),
    ),
    _env(
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
    _env(
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
