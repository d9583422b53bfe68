"""What growing brings: rewards, actions and whose merit it was."""

from __future__ import annotations

from grafana.generator.environment_panels import ENV_NAME, _per_env
from grafana.generator.look import (
    BAD,
    DIM,
    GOOD,
    NEUTRAL,
    OP_COLORS,
    value,
    values,
)
from grafana.generator.model import Target
from grafana.generator.panels import RUN_NAME, heatmap, series
from grafana.generator.queries import (
    OF_ENV,
    OF_SLOT,
    RUN,
    at_the_end,
    buckets,
    by,
    events,
    few,
    over_range,
    rates,
    select,
    worst,
)
from grafana.generator.tables import column, table

REWARD_PARTS = {
    "accuracy change": "base_accuracy_delta",
    "attribution": "bounded_attribution",
    "escrow": "escrow_delta",
    "stage bonus": "stage_bonus",
    "shaping (PBRS)": "pbrs_bonus",
    "synergy bonus": "synergy_bonus",
    "hindsight credit": "hindsight_credit",
    "fossilise bonus": "fossilize_terminal_bonus",
    "terminal bonus": "terminal_bonus",
    "drip": "drip",
    "action shaping": "action_shaping",
    "compute rent": "compute_rent",
    "occupancy rent": "occupancy_rent",
    "fossil rent": "fossilized_rent",
    "alpha shock": "alpha_shock",
    "ratio penalty": "ratio_penalty",
    "blending warning": "blending_warning",
    "holding warning": "holding_warning",
    "escrow forfeit": "escrow_forfeit",
}

REWARDS = (
    series(
        "Reward by its parts",
        tuple(
            Target(
                by("avg", RUN, select(f"esper_simic_reward_{name}", OF_ENV)), f"{word} {RUN_NAME}"
            )
            for word, name in REWARD_PARTS.items()
        ),
        "Parts of the last step's reward, the mean of the environments. Good: accuracy and"
        " attribution carry it. If bonuses or penalties rule, the policy learns to game them: see"
        " 'Gaming and hacking'. Parts that the trainer does not report are absent.",
        unit="short",
        stack="normal",
        repeat="group",
        bars=True,
        fill=60,
        width=16,
        height=10,
    ),
    _per_env(
        "Cumulative reward",
        "esper_simic_env_cumulative_reward",
        "Sum of the rewards in the running episode. Good: positive at its end, and higher from"
        " episode to episode.",
        "short",
        width=12,
    ),
    series(
        "Episodes by outcome",
        Target(
            events("esper_simic_episodes_total", "outcome"),
            f"{{{{outcome}}}} {RUN_NAME}",
        ),
        "How episodes ended. Good: more and more successes.",
        unit="short",
        bars=True,
        fill=60,
        width=12,
    ),
    heatmap(
        "Final accuracy of episodes",
        buckets("esper_simic_episode_final_accuracy_ratio"),
        "Where episodes end, every one counted. Good: the band moves up. Two bands: some"
        " environments fail.",
        unit="percentunit",
        width=12,
    ),
    series(
        "Gaming and hacking",
        (
            Target(
                events("esper_simic_gaming_steps_total"),
                f"anti-gaming penalty {RUN_NAME}",
            ),
            Target(
                events("esper_simic_reward_hacking_suspected_total", "pattern"),
                f"suspected: {{{{pattern}}}} {RUN_NAME}",
            ),
            Target(
                events("esper_simic_performance_degradations_total"),
                f"degradation {RUN_NAME}",
            ),
        ),
        "Steps that an anti-gaming penalty struck, suspicions of reward hacking, and falls below"
        " the rolling accuracy. Good: few. Many: reward and accuracy have come apart.",
        unit="short",
        bars=True,
        fill=60,
        width=12,
    ),
)

ACTIONS = (
    series(
        "Actions",
        Target(
            rates("esper_tamiyo_actions_total", "op"),
            f"{{{{op}}}} {RUN_NAME}",
        ),
        "Actions a second by operation, a panel for each group. Good: a mix; only WAIT is a"
        " policy that avoids risk.",
        unit="ops",
        stack="normal",
        repeat="group",
        colors=OP_COLORS,
        width=12,
    ),
    series(
        "Success of actions",
        Target(
            rates("esper_tamiyo_actions_total", "op", success="true")
            + f" / ({rates('esper_tamiyo_actions_total', 'op')} > 0)",
            f"{{{{op}}}} {RUN_NAME}",
        ),
        "Share of the actions that could be carried out, by operation. Good: near 100 %. Low for"
        " ADVANCE: seeds do not pass their gates.",
        unit="percentunit",
        maximum=1.0,
        colors=OP_COLORS,
        repeat="group",
        width=12,
    ),
)


def _shapley(what: str) -> str:
    last = over_range("last_over_time", select(f"esper_simic_shapley_{what}", OF_SLOT))
    return by("avg", (*RUN, "env_id", "slot_id"), last)


def _matrix(what: str) -> str:
    name = f"esper_simic_counterfactual_{what}"
    return by("max", (*RUN, "env_id"), over_range("last_over_time", select(name, OF_ENV)))


ATTRIBUTION = (
    series(
        "Synergy of the seeds",
        Target(
            few(
                worst("avg", "esper_simic_counterfactual_synergy_ratio", "env_id", scope=OF_ENV),
                at_the_end("esper_simic_counterfactual_synergy_ratio", OF_ENV, "-"),
            ),
            ENV_NAME,
        ),
        "Accuracy that seeds give only together. Good: above 0; below, they harm each other. Absent"
        " unless each seed was also evaluated alone.",
        unit="percentunit",
        soft_maximum=0.1,
        width=12,
    ),
    series(
        "With and without seeds",
        (
            Target(
                by(
                    "avg", RUN, select("esper_simic_counterfactual_combined_accuracy_ratio", OF_ENV)
                ),
                f"all seeds {RUN_NAME}",
            ),
            Target(
                by(
                    "avg", RUN, select("esper_simic_counterfactual_baseline_accuracy_ratio", OF_ENV)
                ),
                f"no seed {RUN_NAME}",
            ),
        ),
        "Accuracy with every seed on and with every seed off. The mean of the environments."
        " Good: on is above off; the distance"
        " is what growing brought.",
        unit="percentunit",
        width=12,
    ),
    table(
        "Counterfactual matrix",
        {"run_id": "Run", "group_id": "Group", "env_id": "Env"},
        (
            column("All seeds", _matrix("combined_accuracy_ratio"), unit="percentunit", decimals=1),
            column("No seed", _matrix("baseline_accuracy_ratio"), unit="percentunit", decimals=1),
            column(
                "Brought",
                f"{_matrix('combined_accuracy_ratio')} - {_matrix('baseline_accuracy_ratio')}",
                unit="percentunit",
                decimals=1,
                levels=((None, BAD), (0.0, NEUTRAL), (1e-9, GOOD)),
            ),
            column("Synergy", _matrix("synergy_ratio"), unit="percentunit", decimals=1),
        ),
        "The last matrix of each environment: its accuracy with every seed and with none, and what"
        " the seeds brought. Good: brought above 0. Below 0 the network was better without them.",
        width=12,
        worst_first="Brought",
    ),
    table(
        "Shapley ranking",
        {"run_id": "Run", "group_id": "Group", "env_id": "Env", "slot_id": "Slot"},
        (
            column(
                "Contribution",
                _shapley("mean"),
                decimals=2,
                levels=((None, BAD), (0.0, NEUTRAL), (1e-9, GOOD)),
            ),
            column("± std", _shapley("std"), decimals=2),
            column(
                "Significant",
                f"abs({_shapley('mean')}) > bool 1.96 * {_shapley('std')}",
                mapping=values(value(0, "○ no", DIM), value(1, "● yes", NEUTRAL)),
            ),
        ),
        "Mean contribution of each slot, percent points of accuracy, as it was estimated last."
        " Good: above 0. Below 0 a seed harms: prune. What is not significant may be chance.",
        width=12,
        worst_first="Contribution",
    ),
    table(
        "Best episodes",
        {"run_id": "Run", "group_id": "Group", "place": "Place"},
        tuple(
            column(
                title,
                by(
                    "max",
                    (*RUN, "place"),
                    over_range("last_over_time", select(f"esper_simic_best_run_{name}")),
                ),
                unit=unit,
                decimals=decimals,
            )
            for title, name, unit, decimals in (
                ("Peak accuracy", "peak_accuracy_ratio", "percentunit", 1),
                ("Final accuracy", "final_accuracy_ratio", "percentunit", 1),
                ("Episode", "episode", "", 0),
                ("Env", "env", "", 0),
                ("Epoch of peak", "epoch", "", 0),
                ("Growth", "growth_ratio", "suffix: ×", 2),
                ("Reward", "cumulative_reward", "short", 2),
                ("Reward at peak", "peak_cumulative_reward", "short", 2),
            )
        ),
        "The run's best episodes by peak accuracy. Good: late episodes, a small growth, and a final"
        " accuracy near the peak.",
        height=9,
        sort=(("Peak accuracy", True),),
    ),
)
