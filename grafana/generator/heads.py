"""Action heads: the ActionHeadsPanel document, over time."""

from __future__ import annotations

from grafana.generator.frame import of_a_run, of_runs
from grafana.generator.look import (
    BAD,
    DIM,
    GOOD,
    HEAD_COLORS,
    HEAD_STATES,
    LATCH,
    MISSING,
    OP_COLORS,
    WARNING,
    any_is_bad,
    coded,
    falling,
    lines,
    rising,
    value,
    values,
    within,
)
from grafana.generator.model import Panel, Row, Target
from grafana.generator.panels import (
    RUN_NAME,
    column,
    heatmap,
    ranking,
    series,
    table,
    timeline,
    vital,
)
from grafana.generator.queries import (
    RUN,
    SCOPE,
    by,
    increase,
    mean_of_histogram,
    over_range,
    rate,
    select,
    so_far,
    state_number,
    worst,
)

from esper_exporter import health

HEAD = "esper_tamiyo_head"
OF_HEADS = SCOPE + ',head=~"$head",head!~"value|q"'
"""The action heads; the critic's heads have a gradient too, but choose nothing."""
HEAD_NAME = f"{{{{head}}}} {RUN_NAME}"
NORM = worst("max", f"{HEAD}_grad_norm", "head", scope=OF_HEADS)
PREVIOUS = worst("max", f"{HEAD}_grad_norm_previous", "head", scope=OF_HEADS)
CHOICE_ENTROPY = worst("min", f"{HEAD}_choice_entropy_ratio", "head", scope=OF_HEADS)
STATE_NUMBERS = {state: number for state, (number, _, _) in HEAD_STATES.items() if number}


def latched(kind: str) -> str:
    """Whether a head was latched within the time range; it outlives the trainer."""
    selector = select(f"{HEAD}_nonfinite_latched", OF_HEADS, kind=kind)
    return by("max", (*RUN, "head"), over_range("max_over_time", selector))


def first_time(kind: str) -> str:
    """When a head was latched first, in milliseconds."""
    selector = select(f"{HEAD}_nonfinite_first_timestamp_seconds", OF_HEADS, kind=kind)
    return f"1000 * {by('min', (*RUN, 'head'), over_range('last_over_time', selector))}"


_STABLE, _LOW, _HIGH = (
    health.GRAD_TREND_STABLE,
    health.HEAD_GRAD_NORM_LOW,
    health.HEAD_GRAD_NORM_HIGH,
)
TREND = (
    f"sgn({NORM} - {PREVIOUS}) * (abs({NORM} - {PREVIOUS}) >= bool {_STABLE})"
    f" * (3 - 2 * ({NORM} < bool {_LOW}) - ({NORM} > bool {_HIGH}))"
)
"""±1 below the healthy range, ±2 above it, ±3 within; 0 where the norm hardly changed."""

TREND_WORDS = values(
    value(0, "→ stable", DIM),
    value(1, "↗ recovering", GOOD),
    value(-1, "↘ vanishing", BAD),
    value(2, "↗ growing", BAD),
    value(-2, "↘ easing", GOOD),
    value(3, "↗", DIM),
    value(-3, "↘", DIM),
)

ENTROPY_LEVELS = falling(health.HEAD_ENTROPY_WARNING, health.HEAD_ENTROPY_CRITICAL)
NORM_LEVELS = (
    (None, MISSING),
    (0.0, BAD),
    (health.HEAD_GRAD_NORM_DEAD, WARNING),
    (_LOW, GOOD),
    (_HIGH, WARNING),
    (health.HEAD_GRAD_NORM_EXPLODING, BAD),
)
RATIO_LEVELS = within(health.HEAD_RATIO_WARNING, health.HEAD_RATIO_CRITICAL)
CV_LEVELS = rising(health.GRADIENT_CV_WARNING, health.GRADIENT_CV_CRITICAL)

TILES = (
    vital(
        "Latched",
        by("sum", RUN, f"{latched('nan')} + {latched('inf')}"),
        "Latches lit in the time range, of two (NaN, Inf) for each head. Good: 0. One that is lit"
        " stays until the run ends. Stop the run, look in the table at which head was first, and"
        " at 'Log-probability' on the policy dashboard for what came before.",
        unit="short",
        decimals=0,
        levels=any_is_bad(),
        mapping=values(value(0, "○ none", GOOD)),
    ),
    vital(
        "Other NaN or Inf",
        by(
            "sum",
            RUN,
            by(
                "max",
                (*RUN, "source"),
                over_range("max_over_time", select("esper_tamiyo_nonfinite_latched")),
            ),
        ),
        "Parts of the training other than heads that were NaN or Inf in the time range: values,"
        " gradients, observations, LSTM state. Good: 0. The table 'Non-finite parts' names them.",
        unit="short",
        decimals=0,
        levels=any_is_bad(),
        mapping=values(value(0, "○ none", GOOD)),
    ),
    vital(
        "Heads in trouble",
        f"count by (run_id, group_id) (max by (run_id, group_id, head) ("
        f"{select(f'{HEAD}_state', OF_HEADS, state='dead|exploding|collapsed')}) == 1)"
        f" or 0 * count by (run_id, group_id) ({select(f'{HEAD}_state', state='unknown')} == 0)",
        "Heads that are dead, exploding or collapsed after the last update. Good: 0. The table"
        " below says which and why.",
        unit="short",
        decimals=0,
        levels=any_is_bad(),
        mapping=values(value(0, "○ none", GOOD)),
    ),
    vital(
        "Lowest entropy",
        by("min", RUN, CHOICE_ENTROPY),
        "Entropy of the most decided head, as a share of its maximum, over the steps in which it"
        " had a choice. Good: above 0.5. At 0.25 and below the policy collapses: raise the entropy"
        " coefficient, look at the advantages.",
        unit="percentunit",
        decimals=0,
        levels=ENTROPY_LEVELS,
    ),
    vital(
        "Max gradient",
        by("max", RUN, NORM),
        "Largest gradient norm of a head in the last update. Good: 0.1 to 2; above 5 it explodes."
        " A run at its beginning is often above: clipping is there for that.",
        unit="short",
        decimals=2,
        levels=NORM_LEVELS,
    ),
    vital(
        "Updates skipped",
        so_far("esper_tamiyo_updates_skipped_total"),
        "Policy updates that the run has thrown away. Good: 0. Not finite: a latch above says"
        " where. Rollback: the governor took all data of a batch.",
        unit="short",
        decimals=0,
        levels=any_is_bad(),
        mapping=values(value(0, "○ none", GOOD)),
    ),
    vital(
        "Updates",
        so_far("esper_tamiyo_updates_total"),
        "Policy updates that the run has carried out. 0 or n/a: nothing below can be judged yet.",
        unit="short",
        decimals=0,
    ),
    vital(
        "Last update",
        f"time() - {worst('max', 'esper_tamiyo_last_update_timestamp_seconds')}",
        "Age of the last policy update. Updates come seconds to minutes apart; ten times the run's"
        " usual interval is EsperRunStalled. n/a: the run does not report (any more).",
        unit="s",
        decimals=0,
    ),
)

HEADS = table(
    "The eight heads",
    {"run_id": "Run", "group_id": "Group", "head": "Head"},
    (
        column(
            "State",
            state_number(f"{HEAD}_state", "state", STATE_NUMBERS, "head", scope=OF_HEADS),
            mapping=coded(HEAD_STATES),
            cell="color-background",
            width=145,
        ),
        column("NaN", latched("nan"), mapping=LATCH, width=100),
        column("Inf", latched("inf"), mapping=LATCH, width=100),
        column(
            "Entropy",
            CHOICE_ENTROPY,
            unit="percentunit",
            decimals=0,
            levels=ENTROPY_LEVELS,
            cell="gauge",
            width=190,
        ),
        column(
            "All steps",
            worst("min", f"{HEAD}_entropy_ratio", "head", scope=OF_HEADS),
            unit="percentunit",
            decimals=0,
            width=85,
        ),
        column(
            "Weight",
            worst("max", f"{HEAD}_entropy_coefficient", "head", scope=OF_HEADS),
            unit="suffix: ×",
            decimals=1,
            width=75,
        ),
        column("Gradient", NORM, decimals=3, levels=NORM_LEVELS, width=95),
        column("Trend", TREND, mapping=TREND_WORDS, width=130),
        column(
            "Ratio max",
            worst("max", f"{HEAD}_ratio_max", "head", scope=OF_HEADS),
            decimals=3,
            levels=RATIO_LEVELS,
            width=95,
        ),
        column("NaN since", first_time("nan"), unit="dateTimeAsLocal", width=185),
        column("Inf since", first_time("inf"), unit="dateTimeAsLocal", width=185),
    ),
    "One row for each head. Good: healthy, no latch, entropy above 50 % where the head had a choice"
    " (the column beside it counts forced steps too, whose entropy is 0), gradient norm 0.1 to 2,"
    " ratio 0.8 to 1.2. Weight is the head's entropy coefficient: sparse heads get more."
    " Indeterminate is no fault: neither clearly healthy nor clearly not. The latches show whether"
    " a head was NaN or Inf within the time range, also when the run is over.",
    height=11,
    sort=(("NaN", True), ("Inf", True), ("State", True)),
    key_properties={
        "Run": (("custom.width", 150),),
        "Group": (("custom.width", 85),),
        "Head": (("custom.width", 115),),
    },
    order=(
        "Head",
        "State",
        "NaN",
        "Inf",
        "Entropy",
        "All steps",
        "Weight",
        "Gradient",
        "Trend",
        "Ratio max",
        "NaN since",
        "Inf since",
        "Run",
        "Group",
    ),
)


def _count(title: str, name: str, what: str) -> Panel:
    return vital(
        title,
        worst("max", name),
        f"{what} Good: 0. n/a: the trainer measures it only at debug level or after an"
        " anomaly, and what is not measured is not shown.",
        unit="short",
        decimals=0,
        levels=any_is_bad(),
        mapping=values(value(0, "○ none", GOOD)),
        width=4,
        height=3,
    )


FLOW = (
    vital(
        "Gradient variation (CV)",
        worst("max", "esper_tamiyo_gradient_cv"),
        "Coefficient of variation of the gradients. Good: below 0.5 (stable); from 2.0 the gradient"
        " is noise: larger batches, a smaller learning rate.",
        unit="short",
        decimals=3,
        levels=CV_LEVELS,
        width=4,
        height=3,
    ),
    _count("Dead tensors", "esper_tamiyo_dead_layers", "Parameter tensors without gradient."),
    _count(
        "Exploding tensors",
        "esper_tamiyo_exploding_layers",
        "Parameter tensors with an exploding gradient.",
    ),
    _count(
        "NaN gradients",
        "esper_tamiyo_nan_gradient_tensors",
        "Parameter tensors with NaN in their gradient.",
    ),
    _count(
        "Inf gradients",
        "esper_tamiyo_inf_gradient_tensors",
        "Parameter tensors with Inf in their gradient.",
    ),
    vital(
        "Exploding updates",
        so_far("esper_tamiyo_gradient_explosions_total"),
        "Updates of the run with a gradient norm above 10 before clipping, counted one by one."
        " Good: few; more than 5 % of updates is EsperGradientExplosion.",
        unit="short",
        decimals=0,
        width=4,
        height=3,
    ),
)


def _per_head(
    title: str, name: str, aggregation: str, description: str, *, unit: str, **more: object
) -> Panel:
    target = Target(worst(aggregation, name, "head", scope=OF_HEADS), HEAD_NAME)
    return series(
        title,
        target,
        description,
        unit=unit,
        colors=HEAD_COLORS,
        **more,  # type: ignore[arg-type]
    )


OVER_TIME = (
    timeline(
        "Head states",
        state_number(f"{HEAD}_state", "state", STATE_NUMBERS, "head", scope=OF_HEADS),
        HEAD_NAME,
        "The state of each head after each update, by gradient norm and entropy. Good: healthy or"
        " indeterminate. Look at what changed first; a head that stays dead no longer learns.",
        coded(HEAD_STATES),
        height=9,
    ),
    _per_head(
        "Entropy where there was a choice",
        f"{HEAD}_choice_entropy_ratio",
        "min",
        "Entropy of each head as a share of its maximum, forced steps left out. Good: above 0.5,"
        " falling slowly as the policy learns. At 0.25 and below it collapses.",
        unit="percentunit",
        maximum=1.0,
        bounds=lines((health.HEAD_ENTROPY_CRITICAL, BAD), (health.HEAD_ENTROPY_WARNING, WARNING)),
    ),
    _per_head(
        "Gradient norm by head",
        f"{HEAD}_grad_norm",
        "max",
        "Gradient norm of each head in the last update, on a logarithmic axis. Good: 0.1 to 2."
        " Below 0.01 a head is dead, above 5 it explodes. What falls below 0.001 leaves the chart.",
        unit="short",
        log=True,
        minimum=0.001,
        bounds=lines(
            (health.HEAD_GRAD_NORM_DEAD, BAD),
            (health.HEAD_GRAD_NORM_LOW, WARNING),
            (health.HEAD_GRAD_NORM_HIGH, WARNING),
            (health.HEAD_GRAD_NORM_EXPLODING, BAD),
        ),
    ),
    _per_head(
        "Largest ratio by head",
        f"{HEAD}_ratio_max",
        "max",
        "Largest probability ratio of each head. Good: within 0.8 and 1.2. Above 1.5 an update"
        " moved the head too far. Exactly 1 with one inner epoch an update.",
        unit="short",
        decimals=2,
        soft_maximum=1.6,
        bounds=lines(
            (health.HEAD_RATIO_CRITICAL[0], BAD),
            (health.HEAD_RATIO_WARNING[0], WARNING),
            (health.HEAD_RATIO_WARNING[1], WARNING),
            (health.HEAD_RATIO_CRITICAL[1], BAD),
        ),
    ),
)

MORE_HEADS = (
    _per_head(
        "KL by head",
        f"{HEAD}_kl_nats",
        "max",
        "KL divergence of each head from before the update. Good: small and even; one head far"
        " above the others drifts alone. Absent where the trainer does not report it.",
        unit="suffix: nats",
    ),
    _per_head(
        "Clipped by head",
        f"{HEAD}_clip_fraction_ratio",
        "max",
        "Share of each head's samples that PPO clipped. Good: below 25 %.",
        unit="percentunit",
        soft_maximum=0.35,
        bounds=lines((health.CLIP_FRACTION_WARNING, WARNING), (health.CLIP_FRACTION_CRITICAL, BAD)),
    ),
    _per_head(
        "Steps with a choice",
        f"{HEAD}_learnable_fraction_ratio",
        "min",
        "Share of steps in which each head could choose. Near 0 a head sees too few steps to learn"
        " from, and its entropy says little.",
        unit="percentunit",
        maximum=1.0,
    ),
    _per_head(
        "Steps that mattered",
        f"{HEAD}_active_ratio",
        "min",
        "Share of steps in which each head mattered for what was done: blueprint only when"
        " germinating, and so on. Absent where the trainer does not report it.",
        unit="percentunit",
        maximum=1.0,
    ),
    series(
        "Non-finite updates by head",
        Target(
            by(
                "sum",
                (*RUN, "head", "kind"),
                increase(select(f"{HEAD}_nonfinite_updates_total", OF_HEADS)),
            )
            + " > 0",
            f"{{{{head}}}} {{{{kind}}}} {RUN_NAME}",
        ),
        "Policy updates in which a head was NaN or Inf, skipped ones included. Good: empty.",
        unit="short",
        bars=True,
        fill=80,
        colors=HEAD_COLORS,
    ),
    table(
        "Non-finite parts",
        {"run_id": "Run", "group_id": "Group", "source": "Part"},
        (
            column(
                "Updates",
                by(
                    "sum",
                    (*RUN, "source"),
                    over_range("last_over_time", select("esper_tamiyo_nonfinite_updates_total")),
                )
                + " > 0",
                decimals=0,
            ),
            column(
                "First",
                "1000 * "
                + by(
                    "min",
                    (*RUN, "source"),
                    over_range(
                        "last_over_time", select("esper_tamiyo_nonfinite_first_timestamp_seconds")
                    ),
                ),
                unit="dateTimeAsLocal",
                width=165,
            ),
            column(
                "Last",
                "1000 * "
                + by(
                    "max",
                    (*RUN, "source"),
                    over_range(
                        "last_over_time", select("esper_tamiyo_nonfinite_last_timestamp_seconds")
                    ),
                ),
                unit="dateTimeAsLocal",
                width=165,
            ),
        ),
        "Parts of the training other than heads that were NaN or Inf: in how many updates, since"
        " when. Good: an empty table. The first in time is nearest to the cause.",
        width=8,
        height=8,
        sort=(("First", False),),
    ),
)

_ACTIONS = rate(select("esper_tamiyo_actions_total"))

DECISIONS = (
    series(
        "Mix of operations",
        Target(f"sum by (op) ({_ACTIONS}) / scalar(sum({_ACTIONS}) > 0)", "{{op}}"),
        "Share of each operation among the actions of the chosen runs together. Good: a mix. More"
        " than 70 % WAIT means that the policy avoids risk; one operation above 80 % means that it"
        " collapsed onto it.",
        unit="percentunit",
        stack="normal",
        maximum=1.0,
        minimum=0.0,
        colors=OP_COLORS,
        width=12,
    ),
    ranking(
        "Operations so far",
        f"sort_desc({so_far('esper_tamiyo_actions_total', 'op')})",
        f"{{{{op}}}} {RUN_NAME}",
        "Actions of the run by operation. PRUNE far above FOSSILIZE: what is grown is not worth"
        " keeping.",
        unit="none",
        colors=OP_COLORS,
        width=6,
    ),
    ranking(
        "Actions that succeeded",
        f"sort({so_far('esper_tamiyo_actions_total', 'op', success='true')}"
        f" / ({so_far('esper_tamiyo_actions_total', 'op')} > 0))",
        f"{{{{op}}}} {RUN_NAME}",
        "Share of each operation's actions that could be carried out. Good: near 100 %. Low: the"
        " policy asks for what the slots cannot do; look at the masks.",
        unit="percentunit",
        decimals=0,
        minimum=0.0,
        maximum=1.0,
        colors=OP_COLORS,
        width=6,
    ),
    series(
        "Confidence by head",
        Target(
            mean_of_histogram("esper_tamiyo_decision_confidence_ratio", "head", scope=OF_HEADS),
            HEAD_NAME,
        ),
        "Mean probability of what each head chose, every decision counted. Rises as the policy"
        " learns; near 100 % it no longer explores.",
        unit="percentunit",
        maximum=1.0,
        colors=HEAD_COLORS,
    ),
    series(
        "Decision entropy by head",
        Target(
            mean_of_histogram("esper_tamiyo_decision_entropy_ratio", "head", scope=OF_HEADS),
            HEAD_NAME,
        ),
        "Mean entropy of each head at the decisions, as a share of its maximum. Good: above 0.25."
        " Absent where the decisions do not carry it.",
        unit="percentunit",
        maximum=1.0,
        colors=HEAD_COLORS,
    ),
    heatmap(
        "Confidence of the operation",
        by(
            "sum",
            ("le",),
            increase(select("esper_tamiyo_decision_confidence_ratio_bucket", head="op")),
        ),
        "How sure the op head was of each decision. Good: spread out while it learns, moving up"
        " later. All in the top band at once: collapse.",
        unit="percentunit",
    ),
    series(
        "Value against reward",
        (
            Target(by("avg", RUN, select("esper_tamiyo_decision_value")), f"value {RUN_NAME}"),
            Target(by("avg", RUN, select("esper_tamiyo_decision_reward")), f"reward {RUN_NAME}"),
        ),
        "Value estimate and reward of the environments' last decisions, on the mean. The value is"
        " of the whole rest of the episode, so compare how they move, not how large they are.",
        unit="short",
    ),
    series(
        "TD advantage",
        (
            Target(
                by("avg", RUN, select("esper_tamiyo_decision_td_advantage")), f"mean {RUN_NAME}"
            ),
            Target(
                by("min", RUN, select("esper_tamiyo_decision_td_advantage")),
                f"lowest {RUN_NAME}",
            ),
            Target(
                by("max", RUN, select("esper_tamiyo_decision_td_advantage")),
                f"highest {RUN_NAME}",
            ),
        ),
        "Reward plus discounted next value less value, of the environments' last decisions. Good:"
        " around 0. A lasting offset is a biased value function.",
        unit="short",
    ),
    series(
        "Decisions without a say",
        Target(
            by(
                "sum",
                (*RUN, "head"),
                rate(select("esper_tamiyo_masked_decisions_total", OF_HEADS)),
            )
            + " / on (run_id, group_id) group_left () "
            + f"({by('sum', RUN, rate(select('esper_tamiyo_decisions_total')))} > 0)",
            HEAD_NAME,
        ),
        "Share of decisions in which a head's choice was masked. High for sparse heads, and for"
        " slot in runs with one slot.",
        unit="percentunit",
        maximum=1.0,
        colors=HEAD_COLORS,
    ),
)

ROWS = (
    Row("Is the policy healthy?", (*TILES, HEADS)),
    Row("Gradient flow", FLOW),
    Row("Heads over time", OVER_TIME),
    Row("Decisions", DECISIONS),
    Row("More of the heads", MORE_HEADS),
)

DASHBOARD = of_runs(
    "esper-heads",
    "esper · Action heads",
    "The eight action heads of a run: entropy, gradients, ratios, NaN and Inf latches, decisions.",
    ROWS,
    of_a_run("head", "Head", f"{HEAD}_nonfinite_latched", "head", "Action heads to show."),
)
