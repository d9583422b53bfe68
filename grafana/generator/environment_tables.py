"""The environments and the seeds in their slots, as tables of now."""

from __future__ import annotations

from grafana.generator.links import to_board
from grafana.generator.look import (
    BAD,
    ENV_STATUSES,
    GOOD,
    MISSING,
    NEUTRAL,
    STAGES,
    WARNING,
    coded,
    value,
    values,
)
from grafana.generator.queries import (
    OF_ENV,
    OF_SLOT,
    RUN,
    by,
    over_range,
    select,
    state_number,
    worst,
)
from grafana.generator.tables import column, table

STATUS_NUMBERS = {status: number for status, (number, _, _) in ENV_STATUSES.items()}
STAGE_NUMBERS = {stage: number for stage, (number, _, _) in STAGES.items()}
DONE = values(value(0, "✕ refused", WARNING), value(1, "✓ done", GOOD))
NEVER_OR_BAD = values(value(0, "○", MISSING), value(1, "● yes", BAD))


def _env(name: str, aggregation: str = "max") -> str:
    return worst(aggregation, name, "env_id", scope=OF_ENV)


def _slot(name: str, aggregation: str = "max") -> str:
    return worst(aggregation, name, "env_id", "slot_id", scope=OF_SLOT)


ENVIRONMENTS = table(
    "The environments",
    {"run_id": "Run", "group_id": "Group", "env_id": "Env"},
    (
        column(
            "Status",
            state_number(
                "esper_tolaria_env_status", "status", STATUS_NUMBERS, "env_id", scope=OF_ENV
            ),
            mapping=coded(ENV_STATUSES),
            cell="color-background",
            width=130,
        ),
        column(
            "Accuracy",
            _env("esper_tolaria_host_accuracy_ratio"),
            unit="percentunit",
            decimals=1,
            cell="gauge",
            levels=((None, NEUTRAL),),
            width=160,
        ),
        column("Loss", _env("esper_tolaria_host_loss"), decimals=3),
        column(
            "Best", _env("esper_tolaria_env_best_accuracy_ratio"), unit="percentunit", decimals=1
        ),
        column("Epoch", _env("esper_tolaria_env_epoch"), decimals=0),
        column("Reward", _env("esper_simic_env_cumulative_reward"), decimals=2),
        column("Growth", _env("esper_kasmina_env_growth_ratio"), unit="suffix: ×", decimals=2),
        column("Seeds", _env("esper_kasmina_env_active_seeds"), decimals=0),
        column("Fossilised", _env("esper_kasmina_env_fossilized_seeds"), decimals=0),
        column("Pruned", _env("esper_kasmina_env_pruned_seeds"), decimals=0),
        column("Last action", _env("esper_tamiyo_env_last_action_success"), mapping=DONE),
        column(
            "Last rollback",
            "1000 * "
            + by(
                "max",
                (*RUN, "env_id"),
                over_range(
                    "last_over_time",
                    select("esper_tolaria_env_last_rollback_timestamp_seconds", OF_ENV),
                ),
            ),
            unit="dateTimeAsLocal",
            width=165,
        ),
    ),
    "One row for each environment, now, the unwell ones first. Good: healthy or excellent,"
    " accuracy near its best. Between two episodes values are absent, a dash. Stalled: no"
    " improvement for ten epochs; degraded: three epochs of falling accuracy.",
    height=12,
    worst_first="Status",
    key_properties={
        "Env": (
            ("custom.width", 60),
            (
                "links",
                [
                    to_board("esper-envs", "This environment", run="Run", group="Group", env="Env"),
                    to_board("esper-gpu", "GPUs and host of the run", run="Run", group="Group"),
                    to_board("esper-heads", "Action heads", run="Run", group="Group"),
                ],
            ),
        ),
    },
    order=(
        "Env",
        "Status",
        "Accuracy",
        "Loss",
        "Best",
        "Epoch",
        "Reward",
        "Growth",
        "Seeds",
        "Fossilised",
        "Pruned",
        "Last action",
        "Last rollback",
        "Run",
        "Group",
    ),
)

SLOTS = table(
    "The seeds",
    {
        "run_id": "Run",
        "group_id": "Group",
        "env_id": "Env",
        "slot_id": "Slot",
        "blueprint": "Blueprint",
        "alpha_curve": "Alpha curve",
    },
    (
        column(
            "Stage",
            state_number(
                "esper_kasmina_slot_stage",
                "stage",
                STAGE_NUMBERS,
                "env_id",
                "slot_id",
                scope=OF_SLOT,
            ),
            mapping=coded(STAGES),
            cell="color-background",
            width=120,
        ),
        column(
            "Info",
            # The newest one: a backfilled block does not mark where a series ends.
            "topk by (run_id, group_id, env_id, slot_id) (1, "
            + by(
                "max",
                (*RUN, "env_id", "slot_id", "blueprint", "alpha_curve"),
                f"timestamp({select('esper_kasmina_seed_info', OF_SLOT)})",
            )
            + ")",
        ),
        column(
            "Alpha",
            _slot("esper_kasmina_seed_alpha_ratio"),
            unit="percentunit",
            decimals=0,
            cell="gauge",
            levels=((None, NEUTRAL),),
            width=130,
        ),
        column("Epochs", _slot("esper_kasmina_seed_stage_epochs"), decimals=0),
        column(
            "Gained",
            _slot("esper_kasmina_seed_accuracy_delta_ratio"),
            unit="percentunit",
            decimals=2,
        ),
        column("Parameters", _slot("esper_kasmina_seed_params"), unit="short"),
        column(
            "Gradient",
            _slot("esper_kasmina_seed_grad_ratio", "min"),
            unit="percentunit",
            decimals=0,
        ),
        column("Vanishing", _slot("esper_kasmina_seed_vanishing"), mapping=NEVER_OR_BAD),
        column("Exploding", _slot("esper_kasmina_seed_exploding"), mapping=NEVER_OR_BAD),
        column("Synergy", _slot("esper_kasmina_seed_synergy"), decimals=3),
        column("Boost", _slot("esper_kasmina_seed_boost_received"), decimals=3),
    ),
    "One row for each slot, now: its seed's stage, blueprint, alpha and health. Good: no vanishing"
    " or exploding gradient, gained accuracy above 0. Between two episodes there is nothing.",
    height=8,
    hidden=("Info",),
    sort=(("Env", False), ("Slot", False)),
    order=(
        "Env",
        "Slot",
        "Stage",
        "Blueprint",
        "Alpha",
        "Epochs",
        "Gained",
        "Parameters",
        "Gradient",
        "Vanishing",
        "Exploding",
        "Synergy",
        "Boost",
        "Alpha curve",
        "Run",
        "Group",
    ),
)
