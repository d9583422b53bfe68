"""Tolaria (host training) and Simic (reward, fitness, attribution), per environment and run."""

from __future__ import annotations

from typing import Any

from esper_exporter.contract.vocabulary import ENV_STATUSES
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import gauge, states

PERCENT = 0.01
ENV = "envs[{env_id}]."
EPOCH = "event:EPOCH_COMPLETED."


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


def env_field(name: str, path: str, help: str, **options: Any) -> Metric:
    """A gauge of an environment, from the snapshot; ``path`` begins at the environment."""
    return gauge("env", name, ENV + path, help, **options)


def _from_epoch(name: str, field: str, help: str, **options: Any) -> Metric:
    return gauge("env", name, EPOCH + field, help, **options)


ENV_METRICS: tuple[Metric, ...] = (
    env_field(
        "esper_tolaria_host_accuracy_ratio",
        "host_accuracy",
        "Validation accuracy of an environment's host, 0 to 1. Absent between two episodes.",
        scale=PERCENT,
        read=_measured("host_accuracy"),
    ),
    env_field(
        "esper_tolaria_host_loss",
        "host_loss",
        "Validation loss of an environment's host.",
        read=_measured("host_loss"),
    ),
    env_field(
        "esper_tolaria_env_epoch",
        "current_epoch",
        "Epoch of the running episode.",
        read=_measured("current_epoch"),
    ),
    env_field(
        "esper_tolaria_env_host_params",
        "host_params",
        "Parameters of the host.",
        zero_is_absent=True,
    ),
    env_field(
        "esper_tolaria_env_best_accuracy_ratio",
        "best_accuracy",
        "Best validation accuracy of the running episode, 0 to 1.",
        scale=PERCENT,
        read=_measured("best_accuracy"),
    ),
    env_field(
        "esper_tolaria_env_best_accuracy_epoch",
        "best_accuracy_epoch",
        "Epoch of the running episode's best accuracy.",
        read=_measured("best_accuracy_epoch"),
    ),
    env_field(
        "esper_tolaria_env_best_accuracy_episode",
        "best_accuracy_episode",
        "Episode that the best accuracy belongs to.",
        read=_measured("best_accuracy_episode"),
    ),
    env_field(
        "esper_tolaria_env_epochs_since_improvement",
        "epochs_since_improvement",
        "Epochs since the accuracy last improved.",
        read=_measured("epochs_since_improvement"),
    ),
    env_field(
        "esper_tolaria_env_stall_epochs",
        "stall_counter",
        "Epochs in a row in which the environment counted as stalling.",
        read=_after_epoch("stall_counter"),
    ),
    env_field(
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
        "Status of an environment: 1 for the current one.",
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
    env_field(
        "esper_kasmina_env_active_seeds",
        "active_seed_count",
        "Active seeds of an environment.",
        read=_seeded("active_seed_count"),
    ),
    env_field(
        "esper_kasmina_env_fossilized_seeds",
        "fossilized_count",
        "Seeds fossilised in the running episode.",
        read=_seeded("fossilized_count"),
    ),
    env_field(
        "esper_kasmina_env_pruned_seeds",
        "pruned_count",
        "Seeds pruned in the running episode.",
        read=_seeded("pruned_count"),
    ),
    env_field(
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
)
