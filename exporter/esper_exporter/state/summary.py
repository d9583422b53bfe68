"""What is computed over a whole run: means over environments, slot stages, rates, trends.

Cheap, but not per event: it is updated at a read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from esper_exporter.contract.events import Event
from esper_exporter.contract.vocabulary import OPS
from esper_exporter.state.rewards import RewardComponents
from esper_exporter.state.run import EpisodeTally, RunState
from esper_exporter.state.snapshot import EventLogEntry, SanctumSnapshot
from esper_exporter.state.statistics import EpisodeStats, SeedLifecycleStats
from esper_exporter.state.trends import compute_correlation, detect_rate_trend

OCCUPIED_STAGES = ("GERMINATED", "TRAINING", "BLENDING", "HOLDING", "FOSSILIZED")
THROUGHPUT_MINIMUM_SECONDS = 1.0


def refresh_summary(run: RunState) -> None:
    """Bring the snapshot's aggregates up to date with its parts."""
    snapshot = run.snapshot
    count_actions(snapshot)
    _average(snapshot)
    _count_stages(snapshot)
    snapshot.rewards = _busiest_rewards(snapshot)
    snapshot.seed_lifecycle = _lifecycle(run)
    snapshot.event_log = [_log_entry(event, episode) for event, episode in run.recent_events]
    snapshot.episode_stats = _episode_stats(run)
    tamiyo = snapshot.tamiyo
    if run.update is not None:
        tamiyo.entropy_clip_correlation = compute_correlation(
            tamiyo.entropy_history, tamiyo.clip_fraction_history
        )


def count_actions(snapshot: SanctumSnapshot) -> None:
    """The running episode's actions, all environments; kept where none has acted."""
    counts = dict.fromkeys(OPS, 0)
    total = 0
    for env in snapshot.envs.values():
        if env.total_actions:
            total += env.total_actions
            for op, count in env.action_counts.items():
                counts[op] = counts.get(op, 0) + count
    if total:
        snapshot.tamiyo.action_counts = counts
        snapshot.tamiyo.total_actions = total


def _log_entry(event: Event, episode: int) -> EventLogEntry:
    return EventLogEntry(
        timestamp=event.timestamp.isoformat()[11:19],
        event_type=event.name,
        env_id=getattr(event.data, "env_id", None),
        message=event.message or event.name,
        episode=episode,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _average(snapshot: SanctumSnapshot) -> None:
    envs = snapshot.envs.values()
    snapshot.aggregate_mean_accuracy = _mean(
        [env.host_accuracy or 0.0 for env in envs if env.accuracy_history]
    )
    snapshot.aggregate_mean_reward = _mean(
        [env.current_reward for env in envs if env.reward_history]
    )


def _count_stages(snapshot: SanctumSnapshot) -> None:
    """Slots by stage. A slot between two seeds (pruned, embargoed, resetting) counts as dormant,
    but the time it spends there counts towards the mean."""
    counts = {"DORMANT": 0, **dict.fromkeys(OCCUPIED_STAGES, 0)}
    epochs = occupied = 0
    for env in snapshot.envs.values():
        for slot_id in snapshot.slot_ids:
            seed = env.seeds.get(slot_id)
            stage = "DORMANT" if seed is None else seed.stage
            counts[stage if stage in counts else "DORMANT"] += 1
            if seed is not None and stage != "DORMANT":
                epochs += seed.epochs_in_stage or 0
                occupied += 1
    snapshot.slot_stage_counts = counts
    snapshot.total_slots = len(snapshot.envs) * len(snapshot.slot_ids)
    snapshot.active_slots = snapshot.total_slots - counts["DORMANT"]
    snapshot.avg_epochs_in_stage = epochs / occupied if occupied else 0.0


def _busiest_rewards(snapshot: SanctumSnapshot) -> RewardComponents:
    """The reward breakdown with most bonuses and penalties in it, else the focused one."""
    best, most = None, 0.0
    for env in snapshot.envs.values():
        parts = env.reward_components
        activity = (
            abs(parts.alpha_shock or 0.0)
            + abs(parts.ratio_penalty or 0.0)
            + abs(parts.stage_bonus or 0.0)
            + abs(parts.fossilize_terminal_bonus or 0.0)
            + abs(parts.hindsight_credit or 0.0)
        )
        if activity > most:
            best, most = parts, activity
    if best is not None:
        return best
    focused = snapshot.envs.get(snapshot.focused_env_id)
    return focused.reward_components if focused else RewardComponents()


def _lifecycle(run: RunState) -> SeedLifecycleStats:
    snapshot, lifecycle = run.snapshot, run.lifecycle
    ended = snapshot.cumulative_fossilized + snapshot.cumulative_pruned
    episodes = max(1, snapshot.current_episode)
    return SeedLifecycleStats(
        prune_count=snapshot.cumulative_pruned,
        fossilize_count=snapshot.cumulative_fossilized,
        total_slots=snapshot.total_slots,
        germination_rate=snapshot.cumulative_germinated / episodes,
        prune_rate=snapshot.cumulative_pruned / episodes,
        fossilize_rate=snapshot.cumulative_fossilized / episodes,
        blend_success_rate=snapshot.cumulative_fossilized / ended if ended else 0.0,
        avg_lifespan_epochs=_mean(list(lifecycle.lifespans)),
        germination_trend=detect_rate_trend(lifecycle.germination_rates),
        prune_trend=detect_rate_trend(lifecycle.prune_rates),
        fossilize_trend=detect_rate_trend(lifecycle.fossilize_rates),
    )


def _episode_stats(run: RunState) -> EpisodeStats:
    snapshot, tally = run.snapshot, run.episodes
    total = snapshot.current_episode
    germinated = snapshot.cumulative_germinated
    stats = EpisodeStats(
        total_episodes=total,
        episodes_per_second=_throughput(tally),
        action_entropy=action_entropy(snapshot.tamiyo.cumulative_action_counts),
        yield_rate=snapshot.cumulative_fossilized / germinated if germinated else 0.0,
        slot_utilization=snapshot.active_slots / snapshot.total_slots
        if snapshot.total_slots
        else 0.0,
    )
    if not tally.lengths or total <= 0:
        return stats
    lengths = list(tally.lengths)
    mean = _mean(lengths)
    steps = sum(lengths)
    stats.length_mean = mean
    stats.length_std = _mean([(length - mean) ** 2 for length in lengths]) ** 0.5
    stats.length_min = min(lengths)
    stats.length_max = max(lengths)
    stats.success_rate = tally.successes / total
    stats.timeout_rate = tally.timeouts / total
    stats.steps_per_germinate = steps / max(1, tally.germinations or 0)
    stats.steps_per_prune = steps / max(1, tally.prunes or 0)
    stats.steps_per_fossilize = steps / max(1, tally.fossilizations or 0)
    stats.completion_trend = completion_trend(list(tally.outcomes))
    return stats


def completion_trend(outcomes: Sequence[bool]) -> str:
    """Are more of the last ten episodes successes than of those before? 10 points decide."""
    if len(outcomes) < 10:
        return "stable"
    recent = _mean(outcomes[-10:])
    older = outcomes[-20:-10] if len(outcomes) >= 20 else outcomes[: len(outcomes) // 2]
    change = recent - _mean(older)
    if change > 0.1:
        return "improving"
    return "declining" if change < -0.1 else "stable"


def action_entropy(counts: Mapping[str, int]) -> float:
    """Shannon entropy of the action mix as a share of its maximum, 0..1."""
    total = sum(counts.values())
    if total <= 0 or len(counts) < 2:
        return 0.0
    entropy = 0.0
    for count in counts.values():
        if count > 0:
            share = count / total
            entropy -= share * math.log(share)
    return entropy / math.log(len(counts))


def _throughput(tally: EpisodeTally) -> float:
    """Episodes per second over the last batches, by the events' own times."""
    if len(tally.completions) < 2:
        return 0.0
    (first, before), (last, after) = tally.completions[0], tally.completions[-1]
    elapsed = last - first
    return (after - before) / elapsed if elapsed >= THROUGHPUT_MINIMUM_SECONDS else 0.0
