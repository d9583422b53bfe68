"""Environments and seeds: what the policy grows, and what that brings."""

from __future__ import annotations

from grafana.generator.environment_panels import SLOT_NAME, STAGE_NUMBERS, _per_env, _tile
from grafana.generator.environment_tables import ENVIRONMENTS, SLOTS
from grafana.generator.frame import of_a_run, of_runs
from grafana.generator.look import (
    GOOD,
    STAGES,
    WARNING,
    any_is_bad,
    coded,
    value,
    values,
)
from grafana.generator.model import Row, Target
from grafana.generator.panels import RUN_NAME, ranking, series, timeline
from grafana.generator.queries import (
    OF_ENV,
    OF_SLOT,
    RUN,
    at_the_end,
    by,
    events,
    few,
    once,
    select,
    so_far,
    state_number,
    worst,
)
from grafana.generator.rewards import ACTIONS, ATTRIBUTION, REWARDS
from grafana.generator.tiles import in_lines

TILES = (
    _tile(
        "Episode",
        worst("max", "esper_run_episode"),
        "Episodes finished. n/a: the run does not report (any more).",
        "short",
    ),
    _tile(
        "Epoch",
        worst("max", "esper_run_epoch"),
        "Epoch within the running episode; the configuration on the policy dashboard says how"
        " many. Good: it moves.",
        "short",
    ),
    _tile(
        "Accuracy now",
        worst("avg", "esper_tolaria_mean_accuracy_ratio"),
        "Mean validation accuracy of the environments' hosts. Absent between two episodes. Good: it"
        " ends each episode higher than it began.",
        "percentunit",
        decimals=1,
    ),
    _tile(
        "Rolling accuracy",
        worst("avg", "esper_tolaria_rolling_accuracy_ratio"),
        "Rolling mean of the batches' final accuracies. Good: rising.",
        "percentunit",
        decimals=1,
    ),
    _tile(
        "Best accuracy",
        worst("max", "esper_simic_best_run_peak_accuracy_ratio"),
        "Best validation accuracy of any episode of the run. The table 'Best episodes' says when"
        " and at which size. Good: rising.",
        "percentunit",
        decimals=1,
    ),
    _tile(
        "Unwell envs",
        f"count by (run_id, group_id) (max by (run_id, group_id, env_id) ("
        f"{select('esper_tolaria_env_status', OF_ENV, status='degraded|stalled')}) == 1)"
        " or 0 * count by (run_id, group_id) ("
        f"{select('esper_tolaria_env_status', OF_ENV, status='healthy')})",
        "Environments that lose accuracy, or have not improved for ten epochs. Good: 0. All of them"
        " at once: the policy harms, or the hosts are done.",
        "short",
        levels=any_is_bad(WARNING),
        mapping=values(value(0, "○ none", GOOD)),
    ),
    _tile(
        "Rollbacks",
        so_far("esper_tolaria_rollbacks_total"),
        "Emergency rollbacks of the run. A few while the policy learns are usual; a steady stream"
        " means that it grows what breaks the hosts.",
        "short",
        levels=any_is_bad(WARNING),
        mapping=values(value(0, "○ none", GOOD)),
    ),
    _tile(
        "Seeds kept",
        worst("max", "esper_kasmina_blend_success_ratio"),
        "Share of ended seeds that were fossilised rather than pruned. Good: rising. Near 0 the"
        " policy grows for nothing.",
        "percentunit",
    ),
)

HOSTS = (
    _per_env(
        "Host accuracy",
        "esper_tolaria_host_accuracy_ratio",
        "Validation accuracy of each environment's host. Gaps are between episodes. Good: rising"
        " within each episode, and each episode ends higher.",
        "percentunit",
        width=12,
    ),
    _per_env(
        "Host loss",
        "esper_tolaria_host_loss",
        "Validation loss of each environment's host. Good: falling within an episode. A jump is"
        " what the governor rolls back.",
        "short",
        width=12,
    ),
)

SLOTS_BY_STAGE = "esper_kasmina_slots"

SEEDS = (
    timeline(
        "Life cycle of the slots",
        few(
            state_number(
                "esper_kasmina_slot_stage",
                "stage",
                STAGE_NUMBERS,
                "env_id",
                "slot_id",
                scope=OF_SLOT,
            ),
            at_the_end("esper_tolaria_host_accuracy_ratio", OF_ENV, "-"),
            4,
        ),
        SLOT_NAME,
        "The stage of each slot's seed, in the four environments of lowest accuracy."
        " Good: germinated, training, blending, holding, fossilised."
        " Pruned right after training, again and again: seeds that are not worth it. A slot that"
        " holds for long waits for a decision.",
        coded(STAGES),
        height=10,
    ),
    _per_env(
        "Growth",
        "esper_kasmina_env_growth_ratio",
        "Size of each network over its host's. Good: as small as the accuracy allows; the rent in"
        " the reward is there for that.",
        "suffix: ×",
        aggregation="max",
        decimals=2,
        width=12,
    ),
    series(
        "Alpha of the seeds",
        Target(
            few(
                worst("max", "esper_kasmina_seed_alpha_ratio", "env_id", "slot_id", scope=OF_SLOT),
                at_the_end("esper_tolaria_host_accuracy_ratio", OF_ENV, "-"),
                2,
            ),
            SLOT_NAME,
        ),
        "How far each seed is blended in, in the two environments of lowest accuracy."
        " Good: from 0 to 1 along its curve; a jump is an alpha"
        " shock, which costs reward.",
        unit="percentunit",
        maximum=1.0,
        width=12,
    ),
    series(
        "Slots by stage",
        tuple(
            Target(
                by(
                    "sum",
                    RUN,
                    once("esper_kasmina_slots", select("esper_kasmina_slots", stage=stage)),
                ),
                f"{word.strip('·◆✕ ')} {RUN_NAME}",
            )
            for stage, (_, word, _) in STAGES.items()
        ),
        "All slots of a run by stage, a panel for each group. Good: something in each stage while"
        " the policy works.",
        unit="short",
        stack="normal",
        repeat="group",
        width=12,
        colors={word.strip("·◆✕ "): color for _, word, color in STAGES.values()},
    ),
    ranking(
        "Blueprints germinated",
        f"sort_desc({so_far('esper_kasmina_germinations_total', 'blueprint')} > 0)",
        f"{{{{blueprint}}}} {RUN_NAME}",
        "Seeds germinated by the run, by blueprint. One blueprint only: the head has collapsed onto"
        " it, or the masks leave nothing else.",
        unit="short",
        decimals=0,
        width=12,
    ),
    ranking(
        "Blueprints' success",
        f"sort_desc({so_far('esper_kasmina_fossilizations_total', 'blueprint')} / ("
        f"{so_far('esper_kasmina_fossilizations_total', 'blueprint')}"
        f" + {so_far('esper_kasmina_prunes_total', 'blueprint')} > 0))",
        f"{{{{blueprint}}}} {RUN_NAME}",
        "Share of a blueprint's ended seeds that were fossilised. What is germinated often and"
        " rarely kept wastes the budget.",
        unit="percentunit",
        decimals=0,
        minimum=0.0,
        maximum=1.0,
        width=12,
    ),
    ranking(
        "Why seeds were pruned",
        "sort_desc("
        + so_far("esper_kasmina_prunes_by_reason_total", "reason", "initiator")
        + " > 0)",
        f"{{{{reason}}}} ({{{{initiator}}}}) {RUN_NAME}",
        "Prunes of the run by reason and by who pruned. Many by the system: the policy holds on to"
        " seeds that harm.",
        unit="short",
        decimals=0,
        width=12,
    ),
    series(
        "Germinated, fossilised, pruned",
        tuple(
            Target(
                events(f"esper_kasmina_{name}_total"),
                f"{word} {RUN_NAME}",
            )
            for word, name in {
                "germinated": "germinations",
                "fossilised": "fossilizations",
                "pruned": "prunes",
            }.items()
        ),
        "Seeds begun and ended between two points. Good: fossilised seeds among the pruned ones.",
        unit="short",
        bars=True,
        fill=60,
        width=12,
        colors={"germinated": "#009e73", "fossilised": "#3f7fd0", "pruned": "#d55e00"},
    ),
)

ROWS = (
    Row("Does it grow well?", (*in_lines(TILES), ENVIRONMENTS, SLOTS, *HOSTS)),
    Row("Seeds", SEEDS),
    Row("Reward", REWARDS),
    Row("Actions", ACTIONS),
    Row("Attribution", ATTRIBUTION),
)

DASHBOARD = of_runs(
    "esper-envs",
    "esper · Environments and seeds",
    "Hosts, rewards, seeds and their life cycle, actions and what each seed contributes.",
    ROWS,
    of_a_run(
        "env",
        "Environment",
        "esper_tolaria_env_last_epoch_timestamp_seconds",
        "env_id",
        "Environments to show.",
    ),
    of_a_run("slot", "Slot", "esper_kasmina_slot_stage", "slot_id", "Slots to show."),
)
