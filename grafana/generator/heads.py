"""Action heads: the ActionHeadsPanel document, over time."""

from __future__ import annotations

from grafana.generator.decisions import DECISIONS
from grafana.generator.frame import of_a_run, of_runs
from grafana.generator.head_queries import (
    CHOICE_ENTROPY,
    CV_LEVELS,
    ENTROPY_LEVELS,
    HEAD,
    NORM,
    NORM_LEVELS,
    OF_HEADS,
    RATIO_LEVELS,
    STATE_NUMBERS,
    TREND,
    TREND_WORDS,
    first_time,
    latched,
)
from grafana.generator.heads_over_time import MORE_HEADS, OVER_TIME
from grafana.generator.links import to_board
from grafana.generator.look import (
    GOOD,
    HEAD_STATES,
    LATCH,
    any_is_bad,
    coded,
    value,
    values,
)
from grafana.generator.model import Panel, Row
from grafana.generator.queries import (
    RUN,
    by,
    over_range,
    select,
    so_far,
    state_number,
    worst,
)
from grafana.generator.tables import column, table
from grafana.generator.tiles import in_lines, vital

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
    "The heads",
    {"run_id": "Run", "group_id": "Group", "head": "Head"},
    (
        column(
            "State",
            state_number(f"{HEAD}_state", "state", STATE_NUMBERS, "head", scope=OF_HEADS),
            mapping=coded(HEAD_STATES),
            cell="color-background",
            width=145,
        ),
        column("NaN", latched("nan"), mapping=LATCH, width=90),
        column("Inf", latched("inf"), mapping=LATCH, width=90),
        column(
            "Entropy",
            CHOICE_ENTROPY,
            unit="percentunit",
            decimals=0,
            levels=ENTROPY_LEVELS,
            cell="gauge",
            width=170,
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
        column("Trend", TREND, mapping=TREND_WORDS, width=105),
        column(
            "Ratio max",
            worst("max", f"{HEAD}_ratio_max", "head", scope=OF_HEADS),
            decimals=3,
            levels=RATIO_LEVELS,
            width=95,
        ),
        column("NaN since", first_time("nan"), unit="dateTimeAsLocal", width=175),
        column("Inf since", first_time("inf"), unit="dateTimeAsLocal", width=175),
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
        "Head": (
            ("custom.width", 115),
            (
                "links",
                [
                    to_board(
                        "esper-heads", "This head alone", run="Run", group="Group", head="Head"
                    ),
                    to_board("esper-envs", "Environments", run="Run", group="Group"),
                ],
            ),
        ),
    },
    order=(
        "Head",
        "Group",
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


ROWS = (
    Row("Is the policy healthy?", (*in_lines(TILES), HEADS)),
    Row("Gradient flow", in_lines(FLOW)),
    Row("Heads over time", OVER_TIME),
    Row("Decisions", DECISIONS, closed=True),
    Row("More of the heads", MORE_HEADS, closed=True),
)

DASHBOARD = of_runs(
    "esper-heads",
    "esper · Action heads",
    "The eight action heads of a run: entropy, gradients, ratios, NaN and Inf latches, decisions.",
    ROWS,
    of_a_run("head", "Head", f"{HEAD}_nonfinite_latched", "head", "Action heads to show."),
)
