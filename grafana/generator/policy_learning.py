"""What the policy learns from: advantages, value function, gradients."""

from __future__ import annotations

from grafana.generator.look import (
    OP_COLORS,
    WARNING,
    lines,
)
from grafana.generator.model import Target
from grafana.generator.panels import RUN_NAME, heatmap, ranking, series
from grafana.generator.policy_panels import P, _over
from grafana.generator.queries import (
    RUN,
    buckets,
    by,
    events,
    quantile,
    rates,
    select,
    worst,
)

from esper_exporter import health

ADVANTAGES = (
    _over(
        "Advantages",
        {
            "mean": ("avg", "advantage_mean"),
            "std": ("avg", "advantage_std"),
            "std before normalisation": ("avg", "advantage_pre_norm_std"),
        },
        "Good: mean near 0 and std near 1 after normalisation. A std before it near 0 means that"
        " all actions look alike: nothing to learn from.",
    ),
    _over(
        "Shape of the advantages",
        {
            "skewness": ("avg", "advantage_skewness"),
            "excess kurtosis": ("avg", "advantage_kurtosis"),
        },
        "Skewness above 0: a few big wins. Kurtosis above 3: outliers rule the update; look at the"
        " rewards of single environments.",
    ),
    _over(
        "Samples that teach",
        {
            "positive advantages": ("avg", "advantage_positive_ratio"),
            "steps with a choice": ("min", "decision_density_ratio"),
            "forced steps": ("max", "forced_step_ratio"),
            "left after masking": ("min", "valid_sample_ratio"),
        },
        "Share of samples with a positive advantage (0.4 to 0.6 is usual), of steps with a choice,"
        " and of samples left after masking. Few choices: few lessons.",
        unit="percentunit",
        maximum=1.0,
    ),
)

VALUES = (
    _over(
        "Explained variance",
        {"explained variance": ("min", "explained_variance")},
        "A diagnostic, never a reason to alert: undefined when returns do not vary, and hugely"
        " negative when they hardly do. Judge the value function by its correlation.",
    ),
    _over(
        "TD and Bellman error",
        {
            "TD mean": ("avg", "td_error_mean"),
            "TD std": ("max", "td_error_std"),
            "Bellman": ("max", "bellman_error"),
        },
        "Good: TD mean near 0 (its bias), Bellman falling. Spikes of the Bellman error come before"
        " NaN losses.",
    ),
    _over(
        "Returns",
        {
            "p10": ("min", "return_p10"),
            "median": ("avg", "return_p50"),
            "p90": ("max", "return_p90"),
            "mean": ("avg", "return_mean"),
        },
        "Spread of the discounted returns. Good: the median rises. p10 far below: some episodes go"
        " badly wrong.",
    ),
    _over(
        "Value estimates",
        {
            "mean": ("avg", "value_mean"),
            "smallest": ("min", "value_min"),
            "largest": ("max", "value_max"),
            "std": ("avg", "value_std"),
        },
        "Good: spread like the returns beside it. A std that goes to 0 is a collapsed value"
        " function.",
    ),
    series(
        "Q-value by operation",
        Target(by("avg", (*RUN, "op"), select(f"{P}_q_value")), f"{{{{op}}}} {RUN_NAME}"),
        "What each operation is worth where it was legal. Lines on top of each other: the critic"
        " ignores the operation.",
        unit="short",
        colors=OP_COLORS,
    ),
    series(
        "Low-variance updates",
        Target(
            rates(f"{P}_updates_low_return_variance_total")
            + f" / ({rates(f'{P}_updates_total')} > 0)",
            RUN_NAME,
        ),
        "Share of updates whose returns hardly varied. Good: below 20 %; above, the value function"
        " has nothing to learn from: see EsperLowReturnVariance.",
        unit="percentunit",
        maximum=1.0,
        bounds=lines((health.LOW_RETURN_VARIANCE_WARNING, WARNING)),
    ),
)

GRADIENTS = (
    heatmap(
        "Gradient norms of all updates",
        buckets(f"{P}_update_grad_norm"),
        "Gradient norm before clipping of every update, none missed between two scrapes. Good: a"
        " narrow band below 10.",
        unit="short",
    ),
    series(
        "Update time",
        (
            Target(worst("max", f"{P}_update_seconds"), f"last {RUN_NAME}"),
            Target(quantile(0.95, f"{P}_update_duration_seconds"), f"95 % below {RUN_NAME}"),
        ),
        "How long a policy update takes. Good: even. A slow rise goes with growing networks or"
        " memory pressure.",
        unit="s",
    ),
    ranking(
        "Largest layers' gradient norms",
        f"topk(12, {by('max', (*RUN, 'layer'), select(f'{P}_layer_grad_norm'))})",
        f"{{{{layer}}}} {RUN_NAME}",
        "The layers with the largest gradients before clipping. One far above the others is where"
        " an explosion starts. Absent where the trainer does not report layers.",
        unit="short",
    ),
    _over(
        "LSTM state",
        {
            "h RMS": ("max", "lstm_hidden_rms"),
            "c RMS": ("max", "lstm_cell_rms"),
            "h largest": ("max", "lstm_hidden_max"),
            "c largest": ("max", "lstm_cell_max"),
        },
        "Size of the policy's recurrent state. Good: steady. Growth without end saturates the"
        " gates; 0 means that the memory is unused.",
    ),
    _over(
        "Observations",
        {
            "outliers": ("max", "observation_outlier_ratio"),
            "near the clip": ("max", "observation_near_clip_ratio"),
            "clipped": ("max", "observation_clip_ratio"),
            "NaN": ("max", "observation_nan_ratio"),
            "Inf": ("max", "observation_inf_ratio"),
        },
        "Share of observations beyond three sigma, near or at the clip, NaN or Inf. Good: NaN and"
        " Inf 0, clipped below a few percent.",
        unit="percentunit",
        soft_maximum=0.05,
    ),
    series(
        "Updates with something odd",
        tuple(
            Target(events(f"{P}_{name}_total"), f"{word} {RUN_NAME}")
            for word, name in {
                "stopped early by KL": "updates_early_stopped",
                "advantages floored": "updates_advantage_std_floored",
                "entropy collapsed": "updates_entropy_collapsed",
                "gradient not finite": "updates_nonfinite_grad_norm",
                "AMP overflow": "amp_overflows",
                "ratio out of bounds": "trust_region_violations",
                "log-prob underflow": "log_prob_underflows",
            }.items()
        ),
        "Counted one by one between two points. Good: none, but for an early stop now and then."
        " What comes first in time is the likely cause of the rest.",
        unit="short",
        bars=True,
        fill=80,
    ),
)
