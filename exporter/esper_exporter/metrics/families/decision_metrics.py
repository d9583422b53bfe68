"""An environment's last decision and its last episode."""

from __future__ import annotations

from typing import Any

from esper_exporter.metrics.families.env_reward_metrics import DECISION
from esper_exporter.metrics.families.host_metrics import PERCENT
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.metric_builders import gauge

OUTCOME = "event:EPISODE_OUTCOME."


def _decision(attribute: str) -> Any:
    def read(roots: Any) -> Any:
        decision = roots["decision"]
        return None if decision is None else getattr(decision, attribute)

    return read


def _from_outcome(name: str, field: str, help: str, **options: Any) -> Metric:
    return gauge("env", name, OUTCOME + field, help, **options)


ENV_METRICS: tuple[Metric, ...] = (
    gauge(
        "env",
        "esper_tamiyo_decision_value",
        DECISION + "value_estimate",
        "Value estimate at the last decision.",
        read=_decision("expected_value"),
    ),
    gauge(
        "env",
        "esper_tamiyo_decision_reward",
        DECISION + "total_reward",
        "Reward of the last decision.",
        read=_decision("actual_reward"),
    ),
    gauge(
        "env",
        "esper_tamiyo_decision_value_residual",
        "derived: reward less value estimate of the last decision",
        "Reward less value estimate of the last decision.",
        read=_decision("value_residual"),
    ),
    gauge(
        "env",
        "esper_tamiyo_decision_td_advantage",
        "derived: reward + 0.995 x next value estimate - value estimate, of the decision before",
        "TD advantage of the last decision whose successor is known.",
        read=lambda roots: roots["run"].td_advantages.get(roots["env"].env_id),
    ),
    gauge(
        "env",
        "esper_tamiyo_decision_entropy_nats",
        DECISION + "decision_entropy",
        "Entropy of the operation's distribution at the last decision.",
        read=_decision("decision_entropy"),
    ),
    gauge(
        "env",
        "esper_tamiyo_decision_confidence",
        DECISION + "action_confidence",
        "Probability of the operation chosen last.",
        read=_decision("confidence"),
    ),
    _from_outcome(
        "esper_simic_episode_last_accuracy_ratio",
        "final_accuracy",
        "Final accuracy of the environment's last episode, 0 to 1.",
        scale=PERCENT,
    ),
    _from_outcome(
        "esper_simic_episode_last_reward", "episode_reward", "Reward of the last episode."
    ),
    _from_outcome(
        "esper_simic_episode_last_param_ratio",
        "param_ratio",
        "Parameters added in the last episode over the host's.",
    ),
    _from_outcome(
        "esper_simic_episode_last_stability_ratio",
        "stability_score",
        "Stability of the last episode, 0 to 1.",
    ),
    _from_outcome(
        "esper_simic_episode_last_fossilized", "num_fossilized", "Seeds fossilised in it."
    ),
    _from_outcome(
        "esper_simic_episode_last_contributing_fossilized",
        "num_contributing_fossilized",
        "Seeds fossilised in it that contribute.",
    ),
    _from_outcome(
        "esper_simic_episode_last_steps", "episode_length", "Length of the last episode."
    ),
)
