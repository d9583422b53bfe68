"""Policy optimisation: losses, trust region, gradients, advantages and the value function."""

from __future__ import annotations

from grafana.generator.frame import of_runs
from grafana.generator.look import (
    BAD,
    HEAD_COLORS,
    WARNING,
    falling,
    lines,
    rising,
)
from grafana.generator.model import Override, Row, Target
from grafana.generator.panels import RUN_NAME, series
from grafana.generator.policy_learning import ADVANTAGES, GRADIENTS, VALUES
from grafana.generator.policy_panels import NO_LOWER_BOUND, P, _now, _over
from grafana.generator.queries import (
    RUN,
    by,
    mean_of_histogram,
    select,
)
from grafana.generator.run_table import CONFIGURATION
from grafana.generator.tiles import in_lines

from esper_exporter import health

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
        "Sum of the heads' entropies, weighted by their coefficients; of esper's eight 9.4 at most."
        " Good: a slow decline. A sudden fall is a collapse: see which head on the action heads.",
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
        "clipped_ratio",
        "max",
        "Share of samples that PPO clipped. Good: below 25 %; from 30 % most of the update is"
        " thrown away. With one inner epoch it is 0.",
        unit="percentunit",
        decimals=1,
        levels=rising(health.CLIP_FRACTION_WARNING, health.CLIP_FRACTION_CRITICAL),
    ),
    _now(
        "Max gradient, 5 min",
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
            "clipped": ("max", "clipped_ratio"),
        },
        "How far an update moved the policy. Good: KL below 0.015, clipped below 0.25. A large KL"
        " of one step (right axis) with a small mean is local drift. Flat with one inner epoch.",
        bounds=lines((health.KL_WARNING, WARNING), (health.KL_CRITICAL, BAD)),
        soft_maximum=0.05,
        overrides=(
            Override("/^largest KL/", (("custom.axisPlacement", "right"),), regex=True),
            Override(
                "/^clipped/",
                (("unit", "percentunit"), ("custom.axisPlacement", "right"), ("max", 1.0)),
                regex=True,
            ),
        ),
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
        "Entropy of the heads",
        Target(
            by("avg", (*RUN, "head"), select(f"{P}_head_entropy_ratio")),
            f"{{{{head}}}} {RUN_NAME}",
        ),
        "The heads' entropies, each as a share of its maximum. Forced steps count as 0 here. Good:"
        " they fall slowly, none to 0.",
        unit="percentunit",
        maximum=1.0,
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
        unit="percentunit",
        overrides=(
            Override(
                "/^update seconds/", (("unit", "s"), ("custom.axisPlacement", "right")), regex=True
            ),
        ),
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
        "Learning rate, entropy weight",
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
            "all": ("max", "clipped_ratio"),
            "probability rose": ("max", "clipped_positive_ratio"),
            "probability fell": ("max", "clipped_negative_ratio"),
            "gradients": ("max", "grad_clipped_ratio"),
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

ROWS = (
    Row("Does the policy learn?", (*in_lines(TILES), *FIVE_CHARTS)),
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
