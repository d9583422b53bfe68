"""Queries to begin with: what each answers, and how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A question, and the query that answers it."""

    question: str
    query: str


EXAMPLES: dict[str, Example] = {
    "runs": Example(
        "Which runs are there, how far did each come, and how did it end?",
        """SELECT run_id, group_id, task, n_envs, updates, batches_completed, max_batches,
       round(epoch(last_event_at) - epoch(started_at)) AS seconds, ended_reason
FROM runs ORDER BY started_at""",
    ),
    "latches": Example(
        "Which head was not finite, first in which update, and how often?",
        """SELECT run_id, head, kind, nonfinite_source, first_update, first_timestamp, updates
FROM latches ORDER BY first_timestamp""",
    ),
    "skipped": Example(
        "Which policy updates were skipped, and what for?",
        """SELECT run_id, batch, anomaly_type, heads, sources
FROM skipped_updates ORDER BY timestamp""",
    ),
    "gradient-norm": Example(
        "How did the gradient norm go, against the median of the updates before?",
        """SELECT batch, round(grad_norm, 3) AS grad_norm,
       round(grad_norm / median(grad_norm) OVER (
           PARTITION BY run_id, group_id ORDER BY seq ROWS BETWEEN 10 PRECEDING AND 1 PRECEDING), 2)
         AS times_its_median
FROM tamiyo_updates ORDER BY seq""",
    ),
    "head-entropy": Example(
        "Which heads stop exploring? Entropy over the steps in which they had a choice.",
        """SELECT head, round(min(entropy_where_choice), 3) AS lowest,
       round(avg(entropy_where_choice), 3) AS mean, round(avg(learnable_fraction), 3) AS choice
FROM head_states WHERE entropy_where_choice IS NOT NULL GROUP BY head ORDER BY lowest, head""",
    ),
    "head-states": Example(
        "In which state was each head, in how many updates?",
        """SELECT head, count(*) FILTER (state = 'healthy') AS healthy,
       count(*) FILTER (state = 'confused') AS confused,
       count(*) FILTER (state = 'exploding') AS exploding,
       count(*) FILTER (state IN ('dead', 'collapsed')) AS collapsed,
       count(*) FILTER (state = 'indeterminate') AS indeterminate
FROM head_states GROUP BY head ORDER BY head""",
    ),
    "actions": Example(
        "What does the policy do, and what does it gain by it?",
        """SELECT regexp_extract(action_name,
           '^(WAIT|GERMINATE|SET_ALPHA_TARGET|PRUNE|FOSSILIZE|ADVANCE)') AS op,
       count(*) AS times, round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS percent,
       round(avg(total_reward), 4) AS mean_reward,
       round(100.0 * avg(action_success::INT), 1) AS succeeded_percent
FROM decisions GROUP BY op ORDER BY times DESC""",
    ),
    "rewards": Example(
        "What is the reward made of?",
        """SELECT round(avg(total_reward), 4) AS total, round(avg(base_acc_delta), 4) AS accuracy,
       round(avg(bounded_attribution), 4) AS attribution, round(avg(compute_rent), 4) AS rent,
       round(avg(alpha_shock), 4) AS alpha_shock, round(avg(pbrs_bonus), 4) AS shaping,
       round(avg(stage_bonus), 4) AS stage
FROM rewards""",
    ),
    "seeds": Example(
        "Which blueprints are grown, and which of them last?",
        """SELECT blueprint_id, count(*) FILTER (event_type = 'SEED_GERMINATED') AS germinated,
       count(*) FILTER (event_type = 'SEED_FOSSILIZED') AS fossilized,
       count(*) FILTER (event_type = 'SEED_PRUNED') AS pruned
FROM seed_lifecycle WHERE blueprint_id IS NOT NULL
GROUP BY blueprint_id ORDER BY germinated DESC, 1""",
    ),
    "accuracy": Example(
        "Does it learn? Accuracy and reward, batch by batch.",
        """SELECT batch_idx, round(avg_accuracy, 2) AS accuracy_percent,
       round(rolling_accuracy, 2) AS rolling_percent, round(avg_reward, 3) AS reward
FROM tolaria_batches ORDER BY seq""",
    ),
    "anomalies": Example(
        "What did the trainer call anomalous, how often, and from when?",
        """SELECT event_type, anomaly_type, count(*) AS times, min(batch) AS first_batch
FROM anomalies GROUP BY ALL ORDER BY times DESC, 1, 2""",
    ),
    "time": Example(
        "Where does the trainer's time go?",
        """SELECT phase_name, count(*) AS reports, round(sum(wall_ms) / 1000, 2) AS seconds,
       round(100 * sum(wall_ms) / sum(sum(wall_ms)) OVER (), 1) AS percent
FROM phase_occupancy GROUP BY phase_name ORDER BY seconds DESC""",
    ),
}
