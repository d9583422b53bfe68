"""Tamiyo's memory, the state of its LSTM, and what an update waited for."""

from __future__ import annotations

from esper_exporter.metrics.families.policy_metrics import tamiyo_field, update_field
from esper_exporter.metrics.metric import Metric

PARTS = (
    ("hidden_l2", "h_l2_total", "L2 norm of h over all envs"),
    ("cell_l2", "c_l2_total", "L2 norm of c over all envs"),
    ("hidden_rms", "h_rms", "root mean square of h"),
    ("cell_rms", "c_rms", "root mean square of c"),
    ("hidden_env_rms_mean", "h_env_rms_mean", "mean over envs of the RMS of h"),
    ("hidden_env_rms_max", "h_env_rms_max", "largest RMS of h of one env"),
    ("cell_env_rms_mean", "c_env_rms_mean", "mean over envs of the RMS of c"),
    ("cell_env_rms_max", "c_env_rms_max", "largest RMS of c of one env"),
    ("hidden_max", "h_max", "largest absolute value in h"),
    ("cell_max", "c_max", "largest absolute value in c"),
    ("has_nan", "has_nan", "1 if the last {when} saw NaN in it"),
    ("has_inf", "has_inf", "1 if the last {when} saw Inf in it"),
)
"""End of a metric's name, end of the field, what it says of the LSTM's state."""

METRICS: tuple[Metric, ...] = (
    *(
        tamiyo_field(
            f"esper_tamiyo_lstm_{part}",
            f"lstm_{field}",
            f"LSTM state: {text.format(when='update')}.",
        )
        for part, field, text in PARTS
    ),
    *(
        update_field(
            f"esper_tamiyo_rollout_lstm_{part}",
            f"rollout_lstm_{field}",
            f"LSTM state during the rollout: {text.format(when='rollout')}.",
        )
        for part, field, text in PARTS
    ),
    tamiyo_field(
        "esper_torch_dataloader_wait_ratio",
        "infrastructure.dataloader_wait_ratio",
        "Share of step time spent waiting for data.",
    ),
)
