"""Policy optimisation: losses, trust region, gradients, advantages and the value function."""

from __future__ import annotations

from grafana.generator.frame import of_runs
from grafana.generator.look import (
    BAD,
    HEAD_COLORS,
    OP_COLORS,
    PLAIN,
    WARNING,
    Steps,
    falling,
    lines,
    rising,
)
from grafana.generator.model import Override, Panel, Row, Target
from grafana.generator.panels import RUN_NAME, heatmap, ranking, series, vital
from grafana.generator.queries import (
    RUN,
    by,
    increase,
    mean_of_histogram,
    quantile,
    rate,
    select,
    worst,
)
from grafana.generator.run_table import CONFIGURATION

from esper_exporter import health

P = "esper_tamiyo"
NO_LOWER_BOUND = -1e9
"""Where the thresholds of a value that may be negative begin."""


def _now(
    title: str,
    name: str,
    aggregation: str,
    description: str,
    *,
    unit: str = "short",
    levels: Steps = PLAIN,
    decimals: int = 3,
    nan: str = "NaN",
) -> Panel:
    return vital(
        title,
        worst(aggregation, f"{P}_{name}"),
        description,
        unit=unit,
        decimals=decimals,
        nan=nan,
        levels=levels,
    )


def _over(
    title: str,
    names: dict[str, tuple[str, str]],
    description: str,
    *,
    unit: str = "short",
    **more: object,
) -> Panel:
    """Several gauges of the policy: word in the legend to aggregation and metric."""
    targets = tuple(
        Target(worst(aggregation, f"{P}_{name}"), f"{word} {RUN_NAME}".strip())
        for word, (aggregation, name) in names.items()
    )
    return series(title, targets, description, unit=unit, **more)  # type: ignore[arg-type]


TILES = (
    _now(
        "Policy loss",
        "policy_loss",
        "max",
        "Policy loss of the last update. It says little by itself; NaN says that the run is lost:"
        " see the latches on the action heads.",
    ),
    _now(
        "Value loss",
        "value_loss",
        "max",
        "Value loss of the last update. Good: falling over the run. Rising for long: the value"
        " function chases returns that change faster than it learns.",
    ),
    _now(
        "Policy entropy",
        "policy_entropy",
        "min",
        "Sum of the eight heads' entropies, weighted by their coefficients, 9.4 at most. Good: a"
        " slow decline. A sudden fall is a collapse: see which head on the action heads.",
        decimals=2,
    ),
    _now(
        "KL divergence",
        "kl_divergence_nats",
        "max",
        "Mean KL from the policy before the update. Good: below 0.015; from 0.03 updates are too"
        " large: lower the learning rate or the inner epochs. With one inner epoch it is 0.",
        unit="suffix: nats",
        decimals=4,
        levels=rising(health.KL_WARNING, health.KL_CRITICAL, start=NO_LOWER_BOUND),
    ),
    _now(
        "Clipped",
        "clip_fraction_ratio",
        "max",
        "Share of samples that PPO clipped. Good: below 25 %; from 30 % most of the update is"
        " thrown away. With one inner epoch it is 0.",
        unit="percentunit",
        decimals=1,
        levels=rising(health.CLIP_FRACTION_WARNING, health.CLIP_FRACTION_CRITICAL),
    ),
    _now(
        "Gradient norm",
        "grad_norm_window_max",
        "max",
        "Largest gradient norm before clipping in the five minutes before the last update. Good:"
        " below 5; above 10 an update counts as exploding.",
        decimals=2,
        levels=rising(health.GRAD_NORM_WARNING, health.GRAD_NORM_CRITICAL),
    ),
    _now(
        "V/R correlation",
        "value_return_correlation",
        "min",
        "Correlation of value estimates and returns: the first thing to look at about the value"
        " function. Good: above 0.6; below 0.3 it does not predict. Low at the beginning.",
        decimals=2,
        nan="undefined",
        levels=falling(
            health.VALUE_CORRELATION_WARNING,
            health.VALUE_CORRELATION_CRITICAL,
            start=NO_LOWER_BOUND,
        ),
    ),
    _now(
        "Min log-prob",
        "log_prob_min_nats",
        "min",
        "The most negative log-probability of the last update. Good: above -50. At -100 NaN is"
        " what usually comes next: look at the logits of the head with the lowest entropy.",
        unit="suffix: nats",
        decimals=1,
        levels=falling(health.LOG_PROB_WARNING, health.LOG_PROB_CRITICAL, start=NO_LOWER_BOUND),
    ),
)

FIVE_CHARTS = (
    _over(
        "Gradient health",
        {
            "before clipping": ("max", "grad_norm_pre_clip"),
            "as reported": ("max", "grad_norm"),
            "largest of 5 min": ("max", "grad_norm_window_max"),
        },
        "Gradient norm before clipping beside the one the trainer reports (after clipping in older"
        " runs, before it today). Good: before clipping below 10 and not growing.",
        log=True,
        bounds=lines((health.GRAD_NORM_WARNING, WARNING), (health.GRAD_NORM_CRITICAL, BAD)),
        width=12,
    ),
    _over(
        "Trust region",
        {
            "KL": ("max", "kl_divergence_nats"),
            "largest KL of a step": ("max", "kl_divergence_max_nats"),
            "clipped": ("max", "clip_fraction_ratio"),
        },
        "How far an update moved the policy. Good: KL below 0.015, clipped below 0.25. A large KL"
        " of one step (right axis) with a small mean is local drift. Flat with one inner epoch.",
        bounds=lines((health.KL_WARNING, WARNING), (health.KL_CRITICAL, BAD)),
        soft_maximum=0.05,
        overrides=(Override("/^largest KL/", (("custom.axisPlacement", "right"),), regex=True),),
        width=12,
    ),
    _over(
        "Value function quality",
        {
            "value–return correlation": ("min", "value_return_correlation"),
            "value–target correlation": ("min", "value_target_correlation"),
            "explained variance": ("min", "explained_variance"),
        },
        "Good: correlation above 0.6 and rising. Explained variance is a diagnostic only: it is"
        " undefined when returns do not vary, and far below 0 when they hardly do.",
        minimum=-1.0,
        maximum=1.0,
        bounds=lines(
            (health.VALUE_CORRELATION_CRITICAL, BAD), (health.VALUE_CORRELATION_WARNING, WARNING)
        ),
        width=12,
    ),
    series(
        "Entropy of the eight heads",
        Target(
            by("avg", ("head",), select(f"{P}_head_entropy_ratio")),
            "{{head}}",
        ),
        "The heads' entropies, each as a share of its maximum, stacked; the mean of the chosen"
        " runs. Forced steps count as 0 here. Good: the stack shrinks slowly, no layer vanishes.",
        unit="percentunit",
        stack="normal",
        colors=HEAD_COLORS,
        width=12,
    ),
    series(
        "Infrastructure timeline",
        (
            Target(by("max", RUN, select("esper_torch_gpu_utilization_ratio")), f"GPU {RUN_NAME}"),
            Target(
                by("max", RUN, select("esper_torch_memory_reserved_bytes"))
                + " / "
                + by("max", RUN, select("esper_torch_memory_peak_bytes")),
                f"memory of its peak {RUN_NAME}",
            ),
            Target(
                by("max", RUN, select("esper_torch_dataloader_wait_ratio")),
                f"waiting for data {RUN_NAME}",
            ),
            Target(mean_of_histogram(f"{P}_update_duration_seconds"), f"update seconds {RUN_NAME}"),
        ),
        "GPU load, memory, waiting for data and the time of an update, as the trainer reports them."
        " Good: busy GPU, no waiting, even updates. More on the GPU dashboard.",
        unit="short",
        width=24,
        height=7,
    ),
)

LOSSES = (
    _over(
        "Losses",
        {
            "policy": ("max", "policy_loss"),
            "value": ("max", "value_loss"),
            "entropy": ("max", "entropy_loss"),
            "Q auxiliary": ("max", "q_aux_loss"),
        },
        "Losses of each update. Good: the value loss falls, none is NaN (a gap in the line). The"
        " entropy loss is absent where the trainer leaves it at 0.",
    ),
    _over(
        "Entropy and its risk",
        {
            "entropy": ("min", "policy_entropy"),
            "velocity": ("min", "entropy_velocity"),
            "collapse risk": ("max", "collapse_risk_ratio"),
        },
        "Policy entropy, its slope over ten updates, and the risk of collapse. Good: risk below"
        " 0.7, slope near 0.",
        bounds=lines((health.COLLAPSE_RISK_CRITICAL, BAD)),
    ),
    _over(
        "Learning rate and entropy coefficient",
        {
            "learning rate": ("max", "learning_rate"),
            "entropy coefficient": ("max", "entropy_coefficient"),
        },
        "What the schedules give, on a logarithmic axis. Good: as configured. An entropy"
        " coefficient that ends early lets the heads collapse.",
        unit="sci",
        log=True,
    ),
)

TRUST = (
    _over(
        "Probability ratios",
        {
            "largest": ("max", "importance_ratio_max"),
            "smallest": ("min", "importance_ratio_min"),
            "mean": ("avg", "importance_ratio_mean"),
            "joint": ("max", "joint_ratio_max"),
        },
        "Ratios of new to old probability. Good: largest below 1.5, smallest above 0.5, mean near"
        " 1. Joint is the product of all heads.",
        soft_maximum=2.2,
        bounds=lines(
            (health.RATIO_MIN_CRITICAL, BAD),
            (health.RATIO_MIN_WARNING, WARNING),
            (health.RATIO_MAX_WARNING, WARNING),
            (health.RATIO_MAX_CRITICAL, BAD),
        ),
    ),
    _over(
        "Clipped up and down",
        {
            "all": ("max", "clip_fraction_ratio"),
            "probability rose": ("max", "clip_fraction_positive_ratio"),
            "probability fell": ("max", "clip_fraction_negative_ratio"),
            "gradients": ("max", "grad_clip_fraction_ratio"),
        },
        "Share of samples clipped, by direction, and of optimizer steps whose gradients were"
        " clipped. Good: samples below 25 % and even in both directions.",
        unit="percentunit",
        soft_maximum=0.35,
        bounds=lines((health.CLIP_FRACTION_WARNING, WARNING), (health.CLIP_FRACTION_CRITICAL, BAD)),
    ),
    _over(
        "Log-probability",
        {"smallest": ("min", "log_prob_min_nats"), "largest": ("max", "log_prob_max_nats")},
        "Extremes of the log-probabilities. Good: above -50. What sinks towards -100 becomes NaN"
        " soon: this is where to look for what came before a latch.",
        unit="suffix: nats",
        bounds=lines((health.LOG_PROB_CRITICAL, BAD), (health.LOG_PROB_WARNING, WARNING)),
    ),
)

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
            by("sum", RUN, rate(select(f"{P}_updates_low_return_variance_total")))
            + f" / ({by('sum', RUN, rate(select(f'{P}_updates_total')))} > 0)",
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
        by("sum", ("le",), increase(select(f"{P}_update_grad_norm_bucket"))),
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
            Target(by("sum", RUN, increase(select(f"{P}_{name}_total"))), f"{word} {RUN_NAME}")
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

ROWS = (
    Row("Does the policy learn?", (*TILES, *FIVE_CHARTS)),
    Row("Losses", LOSSES),
    Row("Trust region", TRUST),
    Row("Advantages", ADVANTAGES),
    Row("Value function", VALUES),
    Row("Gradients, time, inputs", GRADIENTS),
    Row("Run configuration", (CONFIGURATION,)),
)

DASHBOARD = of_runs(
    "esper-policy",
    "esper · Policy optimisation",
    "How PPO does: losses, trust region, gradients, advantages, value function, time of updates.",
    ROWS,
)
