"""Host training into the state: epochs, batches, rollbacks (Tolaria)."""

from __future__ import annotations

from bisect import insort
from operator import attrgetter

from esper_exporter.contract.events import Event
from esper_exporter.contract.tolaria import (
    SeedTelemetry,
    TolariaBatchPayload,
    TolariaEpochPayload,
    TolariaRollbackPayload,
)
from esper_exporter.contract.vocabulary import OPS
from esper_exporter.state import counted
from esper_exporter.state.apply_analytics import see_observations
from esper_exporter.state.attribution import CounterfactualSnapshot, ShapleySnapshot
from esper_exporter.state.copier import copier, twin
from esper_exporter.state.environment import EnvState
from esper_exporter.state.lifecycle import SeedState, new_seed
from esper_exporter.state.rewards import RewardComponents
from esper_exporter.state.run import MAX_SLOTS, RunState
from esper_exporter.state.snapshot import BestRunRecord
from esper_exporter.state.summary import count_actions
from esper_exporter.state.unreported import unreported

BEST_RUNS = 10
SECONDS_PER_HOUR = 3600.0

_EPOCHS = (counted.EPOCHS, ())
_PHASES = {
    "forward": "forward_time_ms",
    "backward": "backward_time_ms",
    "optimizer": "optimizer_step_time_ms",
    "data_transfer": "data_transfer_time_ms",
    "epoch": "host_epoch_time_ms",
}
_times = attrgetter(*_PHASES.values())
_NO_TIMES = (None,) * len(_PHASES)
_copy_interactions = copier(
    {
        name: name
        for name in (
            *("contribution_velocity", "interaction_sum", "boost_received"),
            *("upstream_alpha_sum", "downstream_alpha_sum"),
        )
    }
)


def apply_epoch(run: RunState, event: Event, payload: TolariaEpochPayload) -> None:
    """TOLARIA_EPOCH_COMPLETED / EPOCH_COMPLETED: one environment finished one epoch."""
    run.tallies.count(_EPOCHS)
    env = run.env(payload.env_id)
    if env is None:
        run.tallies.add(counted.EVENTS_OUT_OF_BOUNDS)
        return
    if env.rolled_back:
        env.rolled_back = False
        env.rollback_reason = ""
    if payload.inner_epoch <= 1 and env.shapley_snapshot.slot_ids:
        # Shapley values are computed when an episode ends; the new one has none yet.
        env.shapley_snapshot = ShapleySnapshot()
        run.touched.attribution.add(env.env_id)
    env.host_loss = payload.val_loss
    if payload.seeds is not None:
        run.seeds_reported.add(env.env_id)
    for slot_id, reported in (payload.seeds or {}).items():
        seed = env.seeds.get(slot_id)
        if seed is None:
            if len(env.seeds) >= MAX_SLOTS:
                run.tallies.add(counted.EVENTS_OUT_OF_BOUNDS)
                continue
            seed = env.seeds[slot_id] = new_seed(slot_id)
        _update_seed(seed, reported)
        run.touched.seeds.add((env.env_id, slot_id))
    if not run.slots_locked:
        run.see_slots(payload.seeds or ())
    snapshot = run.bare_snapshot
    snapshot.current_epoch = payload.inner_epoch
    run.epoch_reported = True
    env_id = payload.env_id
    env.add_accuracy(payload.val_accuracy, payload.inner_epoch, snapshot.current_episode + env_id)
    env.last_update = event.timestamp
    run.host_epochs[env_id] = payload
    if payload.observation_stats is not None:
        see_observations(run, event, payload.observation_stats)
    _observe_times(run, payload)
    run.touched.envs.add(env_id)


def _update_seed(seed: SeedState, reported: SeedTelemetry) -> None:
    seed.stage = reported.stage or seed.stage
    seed.blueprint_id = reported.blueprint_id
    seed.accuracy_delta = reported.accuracy_delta
    seed.epochs_in_stage = reported.epochs_in_stage
    seed.alpha = reported.alpha
    seed.grad_ratio = reported.grad_ratio
    seed.has_vanishing = reported.has_vanishing
    seed.has_exploding = reported.has_exploding
    _copy_interactions(reported, seed)


def _observe_times(run: RunState, payload: TolariaEpochPayload) -> None:
    times = _times(payload)
    if times == _NO_TIMES:
        return
    for phase, milliseconds in zip(_PHASES, times, strict=True):
        if milliseconds is not None:
            run.distributions.observe(counted.STEP_DURATION, milliseconds / 1000.0, phase)


def apply_batch(run: RunState, event: Event, payload: TolariaBatchPayload) -> None:
    """TOLARIA_BATCH_COMPLETED / BATCH_EPOCH_COMPLETED: every environment ended its episode."""
    run.tallies.add(counted.BATCHES)
    run.end_attempt()
    snapshot = run.bare_snapshot
    tamiyo, vitals = snapshot.tamiyo, snapshot.vitals
    run.batches_completed += 1
    now = event.timestamp.timestamp()
    snapshot.current_episode = payload.episodes_completed
    snapshot.current_batch = payload.batch_idx
    snapshot.batch_avg_reward = payload.avg_reward
    snapshot.batch_total_episodes = payload.total_episodes
    run.episodes.completions.append((now, payload.episodes_completed))
    tamiyo.current_episode_return = payload.avg_reward
    if payload.episodes_completed > 0:
        for rates, count in (
            (run.lifecycle.germination_rates, snapshot.cumulative_germinated),
            (run.lifecycle.prune_rates, snapshot.cumulative_pruned),
            (run.lifecycle.fossilize_rates, snapshot.cumulative_fossilized),
        ):
            rates.append(count / payload.episodes_completed)
    elapsed = now - run.started_at.timestamp() if run.started_at else 0.0
    if elapsed > 0:
        vitals.epochs_per_second = payload.episodes_completed * snapshot.max_epochs / elapsed
        vitals.batches_per_hour = run.batches_completed / elapsed * SECONDS_PER_HOUR
        vitals.throughput_present = True
    _record_best_runs(run, payload)
    count_actions(snapshot)
    for env in snapshot.envs.values():
        for op, count in env.action_counts.items():
            total = tamiyo.cumulative_action_counts
            total[op] = total.get(op, 0) + count
        tamiyo.cumulative_total_actions += env.total_actions
        if env.accuracy_history:
            run.last_episode[env.env_id] = _ended_episode(env)
        _begin_episode(env)
    run.pending.clear()
    run.host_epochs.clear()
    run.last_decision.clear()
    run.last_rewards.clear()
    run.touched.all_envs = run.touched.best_runs = True


def _record_best_runs(run: RunState, payload: TolariaBatchPayload) -> None:
    """Keep the ten best episodes, each with what it looked like at its peak and at its end.

    What the environment remembers of its peak becomes the record's: the next peak makes it anew.
    """
    snapshot = run.bare_snapshot
    first_episode = payload.episodes_completed - payload.n_envs
    best = snapshot.best_runs
    best.sort(key=_falling)  # a snapshot that was given may have any order
    for env in snapshot.envs.values():
        if env.best_accuracy <= 0:
            continue
        if len(best) >= BEST_RUNS and env.best_accuracy <= best[BEST_RUNS - 1].peak_accuracy:
            continue  # of two equal ones the earlier stays
        grown = sum(int(seed.seed_params or 0) for seed in env.best_seeds.values())
        base = env.host_params
        episode = first_episode + env.env_id
        grows = base > 0 and run.has_seeds(env.env_id)
        insort(
            best,
            BestRunRecord(
                env_id=env.env_id,
                episode=episode,
                peak_accuracy=env.best_accuracy,
                final_accuracy=env.host_accuracy or 0.0,
                epoch=env.best_accuracy_epoch,
                seeds=env.best_seeds,
                slot_ids=list(snapshot.slot_ids),
                growth_ratio=(base + grown) / base if grows else None,
                cumulative_reward=env.cumulative_reward if env.reward_history else None,
                peak_cumulative_reward=env.peak_cumulative_reward if env.reward_history else None,
                reward_components=env.best_reward_components,
                counterfactual_matrix=env.best_counterfactual_matrix,
                shapley_snapshot=env.best_shapley_snapshot,
                action_history=env.best_action_history,
                reward_history=list(env.reward_history),
                accuracy_history=list(env.accuracy_history),
                host_loss=env.host_loss or 0.0,
                host_params=env.host_params,
                fossilized_count=env.fossilized_count,
                pruned_count=env.pruned_count,
                reward_mode=env.reward_mode,
                blueprint_spawns=env.best_blueprint_spawns,
                blueprint_fossilized=env.best_blueprint_fossilized,
                blueprint_prunes=env.best_blueprint_prunes,
            ),
            key=_falling,
        )
    del best[BEST_RUNS:]


def _falling(record: BestRunRecord) -> float:
    return -record.peak_accuracy


def _ended_episode(env: EnvState) -> EnvState:
    """The environment as its episode ended: `_begin_episode` empties these in place."""
    ended = twin(env)
    ended.seeds = dict(env.seeds)
    ended.reward_history = env.reward_history.copy()
    ended.accuracy_history = env.accuracy_history.copy()
    ended.action_history = env.action_history.copy()
    return ended


def _begin_episode(env: EnvState) -> None:
    """Forget everything that belongs to the episode that just ended.

    What the episode's end computed (Shapley values) and the hysteresis counters stay.
    """
    env.seeds.clear()
    env.active_seed_count = env.fossilized_count = env.pruned_count = 0
    env.fossilized_params = 0
    env.current_epoch = 0
    env.host_accuracy = 0.0
    env.epochs_since_improvement = 0
    env.status = "initializing"
    env.reward_history.clear()
    env.accuracy_history.clear()
    env.cumulative_reward = env.peak_cumulative_reward = 0.0
    env.best_reward = float("-inf")
    env.best_reward_epoch = 0
    env.best_accuracy = 0.0
    env.best_accuracy_epoch = env.best_accuracy_episode = 0
    env.best_seeds = {}
    env.best_reward_components = None
    env.best_counterfactual_matrix = None
    env.best_action_history = []
    env.best_blueprint_spawns = {}
    env.best_blueprint_fossilized = {}
    env.best_blueprint_prunes = {}
    env.lifecycle_events = []
    env.action_history.clear()
    env.action_counts = dict.fromkeys(OPS, 0)
    env.total_actions = 0
    env.gaming_trigger_count = env.total_reward_steps = 0
    env.reward_components = unreported(RewardComponents)
    env.counterfactual_matrix = CounterfactualSnapshot()
    env.blueprint_spawns = {}
    env.blueprint_prunes = {}
    env.blueprint_fossilized = {}


def apply_rollback(run: RunState, event: Event, payload: TolariaRollbackPayload) -> None:
    """TOLARIA_ROLLBACK / GOVERNOR_ROLLBACK: the governor restored an environment's last good state.

    Counted here, because the policy update's own counts miss most of them.
    """
    reason = payload.panic_reason or payload.reason
    run.tallies.add(counted.ROLLBACKS, reason)
    env = run.env(payload.env_id)
    if env is None:
        run.tallies.add(counted.EVENTS_OUT_OF_BOUNDS)
        return
    env.rolled_back = True
    env.rollback_reason = payload.reason
    env.rollback_timestamp = event.timestamp
    run.touched.envs.add(env.env_id)
