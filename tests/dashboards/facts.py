"""What the recorded run1 reported, and the panel that shows it; written from the events by hand.

The server has the run twice over: as of two ranks, each stored by two replicas. What each rank
counts for itself is shown for both together; what all ranks know of the run is shown once.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from functools import cache
from typing import Any

from dashboards.asking import column_of, query_of
from esper_exporter.contract.jsonlines import parse_line
from esper_exporter.contract.vocabulary import HEADS
from support.recordings import telemetry_lines


def when(event: dict[str, Any]) -> float:
    """The time of an event, in seconds of the epoch."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()


@cache
def recorded(name: str) -> tuple[dict[str, Any], ...]:
    """The events of a recording."""
    return tuple(parse_line(line) for line in telemetry_lines(name))


def of_type(kind: str, run: str = "run1") -> list[dict[str, Any]]:
    """The data of all events of a type."""
    return [event["data"] for event in recorded(run) if event["event_type"] == kind]


UPDATES = of_type("PPO_UPDATE_COMPLETED")
LAST = UPDATES[-1]
(STARTED,) = of_type("TRAINING_STARTED")
BATCHES = of_type("BATCH_EPOCH_COMPLETED")
EPOCHS = of_type("EPOCH_COMPLETED")
ACTIONS = [data for data in of_type("ANALYTICS_SNAPSHOT") if data["kind"] == "last_action"]
OPERATIONS = ("WAIT", "GERMINATE", "SET_ALPHA_TARGET", "PRUNE", "FOSSILIZE", "ADVANCE")
"""The order of ``op_q_values``."""


def counted(kind: str, field: str) -> dict[str, float]:
    """How many events of a type have each value of a field."""
    return dict(Counter(data[field] for data in of_type(kind)))


def of_both_ranks(counts: dict[str, float]) -> dict[str, float]:
    """What each of two ranks counted, together."""
    return {key: 2 * count for key, count in counts.items()}


MIDWAY = when(recorded("run1")[0]) + 65
"""A moment within an episode; environments have no values between two episodes."""
EPOCHS_SO_FAR = [
    event["data"]
    for event in recorded("run1")
    if event["event_type"] == "EPOCH_COMPLETED" and when(event) <= MIDWAY
]


def of_each_env(field: str, scale: float = 1.0) -> dict[str, float]:
    """The last value of an epoch's field at that moment, by environment."""
    return {str(data["env_id"]): data[field] * scale for data in EPOCHS_SO_FAR}


def of_each_head(field: str, heads: tuple[str, ...] = tuple(HEADS)) -> dict[str, float]:
    """The last update's value of ``head_{head}_{field}``, by head."""
    return {head: LAST[f"head_{head}_{field}"] for head in heads}


def best_of_each_env() -> dict[str, float]:
    """The best accuracy so far of the episode that an environment is in."""
    best: dict[str, float] = {}
    for data in EPOCHS_SO_FAR:
        env = str(data["env_id"])
        accuracy = data["val_accuracy"] / 100
        best[env] = accuracy if data["inner_epoch"] == 1 else max(best.get(env, 0.0), accuracy)
    return best


OF_THE_LAST_UPDATE = {
    # Board, panel, number of its query: the field of the last update.
    ("esper-policy", "Policy loss", 0): "policy_loss",
    ("esper-policy", "Value loss", 0): "value_loss",
    ("esper-policy", "Policy entropy", 0): "entropy",
    ("esper-policy", "KL divergence", 0): "kl_divergence",
    ("esper-policy", "Clipped", 0): "clip_fraction",
    ("esper-policy", "V/R correlation", 0): "v_return_correlation",
    ("esper-policy", "Min log-prob", 0): "log_prob_min",
    ("esper-policy", "Gradient health", 0): "pre_clip_grad_norm",
    ("esper-policy", "Losses", 3): "q_aux_loss",
    ("esper-policy", "Learning rate, entropy weight", 0): "lr",
    ("esper-policy", "Learning rate, entropy weight", 1): "entropy_coef",
    ("esper-policy", "Probability ratios", 0): "ratio_max",
    ("esper-policy", "Probability ratios", 1): "ratio_min",
    ("esper-policy", "Probability ratios", 2): "ratio_mean",
    ("esper-policy", "Probability ratios", 3): "joint_ratio_max",
    ("esper-policy", "Clipped up and down", 1): "clip_fraction_positive",
    ("esper-policy", "Advantages", 0): "advantage_mean",
    ("esper-policy", "Advantages", 1): "advantage_std",
    ("esper-policy", "Advantages", 2): "pre_norm_advantage_std",
    ("esper-policy", "Shape of the advantages", 0): "advantage_skewness",
    ("esper-policy", "Shape of the advantages", 1): "advantage_kurtosis",
    ("esper-policy", "Samples that teach", 0): "advantage_positive_ratio",
    ("esper-policy", "Samples that teach", 1): "decision_density",
    ("esper-policy", "Samples that teach", 2): "forced_step_ratio",
    ("esper-policy", "Explained variance", 0): "explained_variance",
    ("esper-policy", "TD and Bellman error", 0): "td_error_mean",
    ("esper-policy", "TD and Bellman error", 1): "td_error_std",
    ("esper-policy", "TD and Bellman error", 2): "bellman_error",
    ("esper-policy", "Returns", 0): "return_p10",
    ("esper-policy", "Returns", 1): "return_p50",
    ("esper-policy", "Returns", 2): "return_p90",
    ("esper-policy", "Value estimates", 1): "value_min",
    ("esper-policy", "Value estimates", 2): "value_max",
    ("esper-policy", "LSTM state", 0): "lstm_h_rms",
    ("esper-policy", "LSTM state", 3): "lstm_c_max",
    ("esper-heads", "Gradient variation (CV)", 0): "gradient_cv",
    ("esper-heads", "Dead tensors", 0): "dead_layers",
    ("esper-heads", "Exploding tensors", 0): "exploding_layers",
    ("esper-heads", "NaN gradients", 0): "nan_grad_count",
}

OF_THE_START = {
    # Column of the table "Configuration": the field of the start.
    "Learning rate": "lr",
    "Clip range": "clip_ratio",
    "Entropy coef.": "entropy_coef",
    "Envs": "n_envs",
    "Batches": "max_batches",
    "Epochs": "max_epochs",
    "Budget": "param_budget",
}

FACTS: dict[str, tuple[str, str, Any]] = {
    # What it is: the query, the label that distinguishes its values, what was recorded.
    "policy updates": (query_of("esper-heads", "Updates"), "", len(UPDATES)),
    "policy updates of the fleet": (
        column_of("esper-fleet", "Runs", "Updates"),
        "run_id",
        {run: len(of_type("PPO_UPDATE_COMPLETED", run)) for run in ("run1", "run2b")},
    ),
    "latches of a healthy run": (query_of("esper-heads", "Latched"), "", 0),
    "gradient norms of the heads": (
        column_of("esper-heads", "The heads", "Gradient"),
        "head",
        of_each_head("grad_norm"),
    ),
    "largest gradient of the heads": (
        query_of("esper-heads", "Max gradient"),
        "",
        max(of_each_head("grad_norm", (*HEADS, "value", "q")).values()),
    ),
    "entropy where there was a choice": (
        column_of("esper-heads", "The heads", "Entropy"),
        "head",
        {
            head: LAST[f"head_{head}_entropy"] / LAST[f"head_{head}_learnable_fraction"]
            for head in HEADS
        },
    ),
    "ratios of the heads": (
        query_of("esper-heads", "Largest ratio by head"),
        "head",
        of_each_head("ratio_max"),
    ),
    "clipped of the heads": (
        query_of("esper-heads", "Clipped by head"),
        "head",
        of_each_head("clip_fraction"),
    ),
    "steps with a choice": (
        query_of("esper-heads", "Steps with a choice"),
        "head",
        of_each_head("learnable_fraction"),
    ),
    "operations of both ranks": (
        query_of("esper-heads", "Operations so far"),
        "op",
        of_both_ranks(dict(Counter(data["action_name"] for data in ACTIONS))),
    ),
    "exploding updates": (
        query_of("esper-heads", "Exploding updates"),
        "",
        sum(update["pre_clip_grad_norm"] > 10 for update in UPDATES),
    ),
    "q-values": (
        query_of("esper-policy", "Q-value by operation"),
        "op",
        {
            op: value
            for op, value, valid in zip(
                OPERATIONS, LAST["op_q_values"], LAST["op_valid_mask"], strict=True
            )
            if valid
        },
    ),
    "seconds of the last update": (
        query_of("esper-policy", "Update time"),
        "",
        LAST["update_time_ms"] / 1000,
    ),
    "germinations of both ranks": (
        query_of("esper-envs", "Blueprints germinated"),
        "blueprint",
        of_both_ranks(counted("SEED_GERMINATED", "blueprint_id")),
    ),
    "prunes by reason of both ranks": (
        query_of("esper-envs", "Why seeds were pruned"),
        "reason",
        of_both_ranks(counted("SEED_PRUNED", "reason")),
    ),
    "best accuracy": (
        query_of("esper-envs", "Best accuracy"),
        "",
        max(data["val_accuracy"] for data in EPOCHS) / 100,
    ),
    "best accuracy of the fleet": (
        column_of("esper-fleet", "Runs", "Best"),
        "run_id",
        {
            run: max(data["val_accuracy"] for data in of_type("EPOCH_COMPLETED", run)) / 100
            for run in ("run1", "run2b")
        },
    ),
    "rolling accuracy": (
        query_of("esper-envs", "Rolling accuracy"),
        "",
        BATCHES[-1]["rolling_accuracy"] / 100,
    ),
    "episodes": (query_of("esper-envs", "Episode"), "", BATCHES[-1]["episodes_completed"]),
    "rollbacks": (query_of("esper-envs", "Rollbacks"), "", 0),
    "task": (column_of("esper-policy", "Configuration", "Info"), "task", {"cifar_impaired": 1}),
    **{
        f"{panel}, query {number + 1}": (query_of(board, panel, number), "", LAST[field])
        for (board, panel, number), field in OF_THE_LAST_UPDATE.items()
    },
    **{
        f"configured {column}": (
            column_of("esper-policy", "Configuration", column),
            "",
            STARTED[field],
        )
        for column, field in OF_THE_START.items()
    },
}

FACTS_MIDWAY: dict[str, tuple[str, str, Any]] = {
    "accuracy now": (
        query_of("esper-envs", "Accuracy now"),
        "",
        sum(of_each_env("val_accuracy").values()) / 200,
    ),
    "epoch": (query_of("esper-envs", "Epoch"), "", EPOCHS_SO_FAR[-1]["inner_epoch"]),
    "accuracy of the environments": (
        column_of("esper-envs", "The environments", "Accuracy"),
        "env_id",
        of_each_env("val_accuracy", 0.01),
    ),
    "loss of the environments": (
        column_of("esper-envs", "The environments", "Loss"),
        "env_id",
        of_each_env("val_loss"),
    ),
    "best of the environments": (
        column_of("esper-envs", "The environments", "Best"),
        "env_id",
        best_of_each_env(),
    ),
    "epoch of the environments": (
        column_of("esper-envs", "The environments", "Epoch"),
        "env_id",
        of_each_env("inner_epoch"),
    ),
}
