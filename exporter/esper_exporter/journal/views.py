"""The views over a journal's tables: Appendix B of the plan, their old names, and our additions.

Every view starts with the same columns (`COMMON`), then has the fields of its events. The views
that the real system has as well carry its columns under its names, row by row the same.

Source: domain separation plan, Appendix B.
"""

from __future__ import annotations

from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.journal.columns import ENDED, GPU_FAULT, tables, unit_of
from esper_exporter.journal.head_views import (
    LAST_ACTION,
    choice_rows,
    head_state,
    head_state_rows,
    telemetry_head,
)
from esper_exporter.journal.view_parts import (
    COMMON,
    COMMON_COMMENTS,
    MORPHOLOGY_EPOCH,
    View,
    common,
    fields_of,
    once,
    plain_view,
    raw,
    relation,
    union_of,
    units_of,
)

ANOMALIES = (
    "VALUE_COLLAPSE_DETECTED",
    "RATIO_EXPLOSION_DETECTED",
    "RATIO_COLLAPSE_DETECTED",
    "GRADIENT_ANOMALY",
    "GRADIENT_PATHOLOGY_DETECTED",
    "NUMERICAL_INSTABILITY_DETECTED",
    "TOLARIA_ROLLBACK",
    "PLATEAU_DETECTED",
)

CONFOUNDERS = (*ANOMALIES[:-1], "REWARD_HACKING_SUSPECTED", "PERFORMANCE_DEGRADATION")

LIFECYCLE = ("SEED_GERMINATED", "SEED_STAGE_CHANGED", "SEED_FOSSILIZED", "SEED_PRUNED")

TRENDS = ("PLATEAU_DETECTED", "DEGRADATION_DETECTED", "IMPROVEMENT_DETECTED")

_DECISION = (
    *("env_id", "episode_idx", "inner_epoch", "action_name", "action_success", "total_reward"),
    *("value_estimate", "action_confidence", "decision_entropy", "slot_id", "blueprint_id"),
    *("style", "blend_id", "tempo_idx", "alpha_target", "alpha_speed", "alpha_curve"),
    *("alpha_algorithm", "alpha_algorithm_selected"),
    *(f"{head}_masked" for head in ("op", "slot", "blueprint", "style", "tempo")),
    *("alpha_target_masked", "alpha_speed_masked", "alpha_curve_masked"),
    "slot_states",
)


def _runs() -> str:
    started = tables()["TRAINING_STARTED"]
    return f"""
        SELECT {common(("event_id", "run_dir", "run_id", "group_id"))}, {fields_of(started)},
               _rank AS rank, _timestamp AS started_at, _seq AS seq, _source AS source,
               last_event_at, events, updates, batches_completed, ended_at, ended_reason
        FROM {relation("TRAINING_STARTED")} AS s
        LEFT JOIN run_facts AS f
          ON f.run_id = s._run_id AND f.group_id = s._group_id AND f.rank = s._rank
         AND f.source = s._source"""


def facts(present: tuple[str, ...]) -> str:
    """One row a run: its progress and how it ended."""
    seen = " UNION ALL ".join(
        f"SELECT _run_id, _group_id, _rank, _source, _timestamp, _event_type, '{kind}' AS kind"
        f" FROM {relation(kind)}"
        for kind in present
    )
    return f"""
        SELECT _run_id AS run_id, _group_id AS group_id, _rank AS rank, _source AS source,
               max(_timestamp) AS last_event_at, count(*) AS events,
               count(*) FILTER (kind = 'TAMIYO_POLICY_UPDATE') AS updates,
               count(*) FILTER (kind = 'TOLARIA_BATCH_COMPLETED') AS batches_completed,
               max(_timestamp) FILTER (kind = '{ENDED}') AS ended_at,
               (SELECT max_by(reason, e._timestamp) FROM {relation(ENDED)} AS e
                 WHERE e._run_id = a._run_id AND e._group_id = a._group_id) AS ended_reason
        FROM ({seen}) AS a GROUP BY ALL"""


def _number(name: str) -> str:
    return f"try_cast(json_extract_string(data, '$.{name}') AS BIGINT) AS {name}"


def _text(name: str) -> str:
    return f"json_extract_string(data, '$.{name}') AS {name}"


def _or(name: str, otherwise: str) -> str:
    return f"coalesce(json_extract_string(data, '$.{name}'), '{otherwise}')"


def views(present: tuple[str, ...], dual: frozenset[str] = frozenset()) -> list[View]:
    """All views, in the order in which they build on each other.

    ``present`` are the event types that there are rows of, ``dual`` those that came under both
    their names.
    """
    analytics = tables()["ANALYTICS_SNAPSHOT"]
    components = next(each for each in analytics.columns if each.name == "reward_components")
    assert isinstance(components.shape, dict)
    parts = [each for each in components.shape if each not in _DECISION]
    states = ", ".join(f"{head_state(head)} AS head_{head}_state" for head in HEADS)
    updates = (
        once("TAMIYO_POLICY_UPDATE")
        if "TAMIYO_POLICY_UPDATE" in dual
        else relation("TAMIYO_POLICY_UPDATE")
    )
    any_present = present or ("TRAINING_STARTED",)
    analytics_units = units_of("ANALYTICS_SNAPSHOT")
    raw_comments = COMMON_COMMENTS | {"data": "the payload as JSON, by the contract's fields"}
    return [
        View("raw_events", "every event that was accepted", raw(any_present), (), raw_comments),
        View(
            "runs",
            "one row a TRAINING_STARTED, with how far the run came and how it ended",
            _runs(),
            (),
            units_of("TRAINING_STARTED"),
        ),
        plain_view(
            "tolaria_epochs",
            "TOLARIA_EPOCH_COMPLETED",
            "one row an environment and epoch of host training",
            aliases=("epochs",),
            extra="_epoch AS epoch",
            dual=dual,
        ),
        View(
            "tamiyo_updates",
            "one row a policy update, with each head's state",
            f"SELECT {common()}, _epoch AS episodes_completed,"
            f" {fields_of(tables()['TAMIYO_POLICY_UPDATE'])}, {states} FROM {updates}",
            ("ppo_updates",),
            units_of("TAMIYO_POLICY_UPDATE"),
        ),
        plain_view(
            "tolaria_batches",
            "TOLARIA_BATCH_COMPLETED",
            "one row a batch of episodes",
            aliases=("batch_epochs", "batches"),
            dual=dual,
        ),
        View(
            "seed_lifecycle",
            "germinations, stage changes, fossilizations and prunes of seeds",
            f"SELECT {common()}, _event_type AS event_type, _seed_id AS seed_id,"
            f" * EXCLUDE (_event_type, _event_id, _timestamp, _run_id, _group_id, _rank, _seq,"
            f" _source, _epoch, _message, _seed_id, _slot_id) FROM {union_of(LIFECYCLE)}",
            (),
            units_of(*LIFECYCLE),
        ),
        View(
            "decisions",
            "one row an action of the policy, with each head's confidence and entropy",
            f"SELECT {common()}, {', '.join(_DECISION)}, alternatives::JSON AS alternatives, "
            + ", ".join(
                f"head_telemetry.{telemetry_head(head)}_{what} AS head_{head}_{what}"
                for what in ("confidence", "entropy")
                for head in HEADS
            )
            + f" FROM {relation('ANALYTICS_SNAPSHOT')} WHERE {LAST_ACTION}",
            (),
            analytics_units | {f"head_{h}_entropy": unit_of("head_entropy") for h in HEADS},
        ),
        View(
            "rewards",
            "one row an action of the policy: its reward, taken apart",
            f"SELECT {common()}, env_id, episode_idx, inner_epoch, action_name, action_success,"
            " total_reward, "
            + ", ".join(f"reward_components.{name} AS {name}" for name in parts)
            + f" FROM {relation('ANALYTICS_SNAPSHOT')} WHERE {LAST_ACTION}",
            (),
            analytics_units | {name: unit_of(name) for name in parts if unit_of(name)},
        ),
        View(
            "anomalies",
            "what the trainer called anomalous (plateaus, and what a healthy run has, included)",
            f"""SELECT {", ".join(COMMON)}, epoch, event_type, message, data,
                   json_extract_string(data, '$.anomaly_type') AS anomaly_type,
                   coalesce(json_extract_string(data, '$.detail'),
                            json_extract_string(data, '$.reason')) AS detail,
                   try_cast(json_extract_string(data, '$.batch') AS BIGINT) AS batch,
                   try_cast(json_extract_string(data, '$.env_id') AS BIGINT) AS env_id
                FROM ({raw(tuple(k for k in ANOMALIES if k in present) or ANOMALIES[:1])})""",
            (),
            COMMON_COMMENTS,
        ),
        plain_view("episode_outcomes", "EPISODE_OUTCOME", "one row an episode that ended"),
        View(
            "latches",
            "one row a head, or source, and kind that was not finite, by run",
            "SELECT * FROM latch_facts",
        ),
        View(
            "skipped_updates",
            "policy updates that were skipped, and what named as their cause",
            "SELECT * FROM skip_facts",
        ),
        plain_view("endings", ENDED, "how runs ended, where the exporter saw it"),
        View(
            "head_states",
            "one row a policy update and head: entropy, gradient, state",
            head_state_rows(updates),
            (),
            COMMON_COMMENTS
            | {
                "entropy": unit_of("head_entropy"),
                "entropy_where_choice": "share of the maximum over the steps with a choice",
                "grad_norm": "L2 norm",
            },
        ),
        View(
            "choices",
            "one row an action and head: what it chose, how sure it was",
            choice_rows(),
            (),
            COMMON_COMMENTS | {"confidence": "probability, 0 to 1"},
        ),
        plain_view(
            "gpu_faults", GPU_FAULT, "XIDs and uncorrected memory errors seen during the run"
        ),
        plain_view("rollbacks", "TOLARIA_ROLLBACK", "what the governor rolled back", dual=dual),
        plain_view("seed_gates", "SEED_GATE_EVALUATED", "gates that seeds passed or did not"),
        View(
            "trends",
            "plateaus, degradations and improvements of the rolling accuracy",
            f"SELECT {common()}, _event_type AS event_type, batch_idx, episodes_completed,"
            " rolling_delta, rolling_avg_accuracy, prev_rolling_avg_accuracy"
            f" FROM {union_of(TRENDS)}",
            (),
            units_of("PLATEAU_DETECTED"),
        ),
        plain_view(
            "batch_stats",
            "ANALYTICS_SNAPSHOT",
            "one row a batch, skipped updates included",
            where="kind = 'batch_stats'",
        ),
        plain_view(
            "morphology_causal_log",
            "MORPHOLOGY_CAUSAL_LOG",
            "proposals, verdicts, mutations",
            extra=f"{MORPHOLOGY_EPOCH} AS epoch, _severity AS severity, _message AS message",
        ),
        plain_view(
            "topology_manifests",
            "TOPOLOGY_MANIFEST_RECORDED",
            "topologies of proof runs",
            extra="_epoch AS epoch, _severity AS severity, _message AS message",
        ),
        plain_view(
            "counterfactuals", "COUNTERFACTUAL_MATRIX_COMPUTED", "accuracies with seeds off"
        ),
        plain_view(
            "performance_degradations", "PERFORMANCE_DEGRADATION", "accuracy lost by a host"
        ),
        plain_view("allocator_stats", "ALLOCATOR_STATS", "torch's CUDA allocator"),
        plain_view("memory_warnings", "MEMORY_WARNING", "GPU memory nearly full"),
        plain_view("infrastructure", "INFRASTRUCTURE_SNAPSHOT", "memory, compilation, step times"),
        View(
            "action_distribution",
            "how often each action was taken in a batch of episodes",
            f"""SELECT a.* EXCLUDE (counts), b.batch_idx, a.counts[action_name] AS count,
                   a.counts[action_name]::DOUBLE
                       / sum(a.counts[action_name]::DOUBLE) OVER (PARTITION BY a.event_id) AS pct
                FROM (SELECT {common()}, _epoch AS episodes_completed, action_counts AS counts,
                             unnest(map_keys(action_counts)) AS action_name
                      FROM {relation("ANALYTICS_SNAPSHOT")}
                      WHERE kind = 'action_distribution') AS a
                LEFT JOIN tolaria_batches AS b
                  ON b.source = a.source AND b.run_id = a.run_id AND b.group_id = a.group_id
                 AND b.episodes_completed = a.episodes_completed""",
            (),
            COMMON_COMMENTS | {"pct": "ratio, 0 to 1"},
        ),
        View(
            "shapley_computed",
            "Shapley values of the seeds in their slots",
            f"SELECT {common()}, env_id, batch, num_slots, shapley_values::JSON AS shapley_values"
            f" FROM {relation('ANALYTICS_SNAPSHOT')} WHERE kind = 'shapley_computed'",
            (),
            COMMON_COMMENTS,
        ),
        View(
            "run_confounders",
            "what makes a comparison of runs doubtful",
            f"""SELECT {", ".join(COMMON)}, event_type,
                   {_number("env_id")}, {_text("anomaly_type")},
                   coalesce(try_cast(json_extract_string(data, '$.episode') AS BIGINT),
                            try_cast(json_extract_string(data, '$.episode_idx') AS BIGINT))
                       AS episode,
                   {_number("batch")}, {_number("inner_epoch")}, {_number("total_episodes")},
                   CASE event_type
                     WHEN 'GOVERNOR_ROLLBACK' THEN
                       'governor rollback: ' || {_or("reason", "unknown reason")}
                     WHEN 'REWARD_HACKING_SUSPECTED' THEN
                       'reward hacking suspected (' || {_or("pattern", "unknown pattern")}
                       || ') slot=' || {_or("slot_id", "?")} || ' seed=' || {_or("seed_id", "?")}
                     WHEN 'PERFORMANCE_DEGRADATION' THEN
                       'performance degradation: drop ' || {_or("drop_percent", "?")}
                       || '% (threshold ' || {_or("threshold_percent", "?")} || '%)'
                     ELSE json_extract_string(data, '$.detail') END AS detail,
                   true AS proof_blocking
                FROM ({raw(tuple(k for k in CONFOUNDERS if k in present) or CONFOUNDERS[:1])})""",
            (),
            COMMON_COMMENTS,
        ),
        View(
            "reward_calibration",
            "whether a run's reward rises with the accuracy that it is meant to reward",
            """SELECT *, CASE
                     WHEN n_episodes <= 1 OR std_accuracy = 0 OR std_reward = 0
                       THEN 'insufficient_data'
                     WHEN reward_accuracy_correlation >= 0.7 THEN 'well_calibrated'
                     WHEN reward_accuracy_correlation >= 0.3 THEN 'moderate'
                     WHEN reward_accuracy_correlation >= 0 THEN 'weak'
                     ELSE 'inverted' END AS calibration_status
                FROM (SELECT run_dir, run_id, group_id, reward_mode, count(*) AS n_episodes,
                             avg(final_accuracy) AS mean_accuracy,
                             avg(episode_reward) AS mean_reward,
                             stddev_samp(final_accuracy) AS std_accuracy,
                             stddev_samp(episode_reward) AS std_reward,
                             min(final_accuracy) AS min_accuracy,
                             max(final_accuracy) AS max_accuracy,
                             min(episode_reward) AS min_reward, max(episode_reward) AS max_reward,
                             CASE WHEN count(*) > 1 AND stddev_samp(final_accuracy) > 0
                                   AND stddev_samp(episode_reward) > 0
                                  THEN corr(final_accuracy, episode_reward) END
                                 AS reward_accuracy_correlation
                      FROM episode_outcomes
                      WHERE final_accuracy IS NOT NULL AND episode_reward IS NOT NULL
                      GROUP BY run_dir, run_id, group_id, reward_mode)""",
        ),
        View(
            "phase_occupancy",
            "where the trainer's time went, one row a report and phase",
            f"""SELECT {", ".join(COMMON)}, epoch, batch_idx, key AS phase_name,
                   try_cast(json_extract(value, '$.wall_ms') AS DOUBLE) AS wall_ms,
                   try_cast(json_extract(value, '$.python_cpu_ms') AS DOUBLE) AS python_cpu_ms,
                   try_cast(json_extract(value, '$.python_cpu_ratio') AS DOUBLE)
                       AS python_cpu_ratio
                FROM (SELECT {common()}, epoch, batch_idx, phases::JSON AS phases
                      FROM {relation("PHASE_PROFILE_COMPLETED")}
                      WHERE json_type(phases::JSON) = 'OBJECT') AS reports,
                     json_each(reports.phases) AS named""",
            (),
            units_of("PHASE_PROFILE_COMPLETED")
            | {
                "wall_ms": "milliseconds",
                "python_cpu_ms": "milliseconds",
                "python_cpu_ratio": "ratio",
            },
        ),
    ]
