"""The run itself and what is reported about it: start, trends, anomalies, outcomes, resources."""

from __future__ import annotations

from functools import lru_cache

from esper_exporter.contract.events import Event
from esper_exporter.contract.infra import (
    AllocatorStatsPayload,
    InfrastructureSnapshotPayload,
    MemoryWarningPayload,
    PhaseProfileReport,
)
from esper_exporter.contract.kasmina import MorphologyCausalLogPayload, TopologyManifestPayload
from esper_exporter.contract.simic import (
    AnomalyDetectedPayload,
    CheckpointLoadedPayload,
    EpisodeOutcomePayload,
    PerformanceDegradationPayload,
    RewardHackingSuspectedPayload,
    TrainingStartedPayload,
    TrendDetectedPayload,
)
from esper_exporter.state import counted
from esper_exporter.state.counters import CounterKey, HistogramRow
from esper_exporter.state.environment import EnvState
from esper_exporter.state.heads import see_heads
from esper_exporter.state.latches import FINITENESS_ANOMALIES
from esper_exporter.state.rewards import RewardComponents
from esper_exporter.state.run import MAX_ENVS, MAX_SLOTS, RunState
from esper_exporter.state.snapshot import RunConfig
from esper_exporter.state.torch_memory import of_allocator, of_infrastructure
from esper_exporter.state.unreported import unreported

_CPU_OF_PHASE: dict[str, CounterKey] = {
    phase: (counted.PHASE_CPU_SECONDS, (phase,)) for (phase,) in counted.PHASE_CPU_SECONDS.known
}
_KNOWN_PHASES = frozenset(_CPU_OF_PHASE)

INCOMPLETE_REASONS = ("raised", "skipped", "no_event")
"""How an update ended that was measured and not completed."""


def apply_training_started(run: RunState, event: Event, payload: TrainingStartedPayload) -> None:
    """TRAINING_STARTED: the run's configuration. The run is new; its aggregator sees to that."""
    snapshot = run.bare_snapshot
    run.started = payload
    run.started_at = event.timestamp
    see_heads(run, payload.action_heads)
    snapshot.run_id = payload.episode_id or ""
    snapshot.task_name = payload.task
    snapshot.max_epochs = payload.max_epochs
    snapshot.max_batches = payload.max_batches
    snapshot.current_episode = payload.start_episode or 0
    snapshot.start_time = event.timestamp
    snapshot.reward_mode = payload.reward_mode
    snapshot.vitals.host_params = payload.host_params
    snapshot.run_config = RunConfig(
        seed=payload.seed,
        n_episodes=payload.n_episodes,
        lr=payload.lr,
        clip_ratio=payload.clip_ratio,
        entropy_coef=payload.entropy_coef,
        param_budget=payload.param_budget,
        resume_path=payload.resume_path or "",
        entropy_anneal=dict(payload.entropy_anneal or {}),
    )
    snapshot.slot_ids = list(payload.slot_ids[:MAX_SLOTS])
    run.slots_locked = True
    for env_id in range(min(payload.n_envs, MAX_ENVS)):
        snapshot.envs[env_id] = EnvState(
            env_id=env_id,
            host_params=payload.host_params,
            reward_mode=payload.reward_mode,
            reward_components=unreported(RewardComponents, env_id=env_id),
        )
    infrastructure = snapshot.tamiyo.infrastructure
    infrastructure.compile_enabled = bool(payload.compile_enabled)
    infrastructure.compile_backend = payload.compile_backend or ""
    infrastructure.compile_mode = payload.compile_mode or ""


def apply_checkpoint_loaded(
    run: RunState, event: Event, payload: CheckpointLoadedPayload | None
) -> None:
    """CHECKPOINT_LOADED: the run continues an earlier one."""
    run.tallies.add(counted.CHECKPOINTS_LOADED)
    run.checkpoint_at = event.timestamp


def apply_trend(run: RunState, event: Event, payload: TrendDetectedPayload) -> None:
    """PLATEAU_, DEGRADATION_ and IMPROVEMENT_DETECTED."""
    run.tallies.add(counted.TRENDS, event.type.removesuffix("_DETECTED").lower())


def apply_anomaly(run: RunState, event: Event, payload: AnomalyDetectedPayload) -> None:
    """All anomaly events. Only the finiteness anomalies light latches: a plain
    ``numerical_instability`` also comes for values that are NaN by design."""
    kind = payload.anomaly_type
    run.tallies.add(counted.ANOMALIES, kind)
    light_anomaly(run, event, payload)


def light_anomaly(run: RunState, event: Event, payload: AnomalyDetectedPayload) -> None:
    """Light the latches that an anomaly names, and count the update that it reports as skipped."""
    kind = payload.anomaly_type
    see_heads(run, payload.action_heads)
    if kind is None:
        return
    if kind in FINITENESS_ANOMALIES:
        attempt = run.begin_attempt("anomaly")
        # The trainer gives an update that it skipped batch 0, which is none.
        batch = payload.batch or None
        run.latches.light_detail(payload.detail or "", event.timestamp, attempt, batch=batch)
        run.count_skip("nonfinite")
        if kind == "ppo_finiteness_failure":
            run.tallies.add(counted.FINITENESS_FAILURES)
        _show_latches(run)
    elif kind == "nonfinite_detected":
        # Reported as soon as it is seen; a later event reports whether the update is carried out.
        if run.attempt_ways:
            run.end_attempt()
        detail = payload.detail or ""
        run.latches.light_detail(
            detail, event.timestamp, run.attempt, payload.inner_epoch, payload.batch or None
        )
        run.layer_faults.light_detail(detail, event.timestamp, run.attempt, payload.batch)
        _show_latches(run)
    elif kind == "update_skipped":
        run.begin_attempt("anomaly")
        run.count_skip("requested")
    elif kind == "update_incomplete":
        # Measured, and never completed: the trainer raised, or its event did not come.
        reason = payload.detail if payload.detail in INCOMPLETE_REASONS else "no_event"
        run.tallies.add(counted.UPDATES_INCOMPLETE, reason)
    elif kind == "ratio_nan_inf":
        run.latches.light_source("ratio", event.timestamp, run.attempt)
    elif kind.startswith("lstm_") and ("nan" in kind or "inf" in kind):
        run.latches.light_source("lstm", event.timestamp, run.attempt)


def _show_latches(run: RunState) -> None:
    tamiyo = run.bare_snapshot.tamiyo
    for head, which in run.latches.lit_heads():
        (tamiyo.head_nan_latch if which == "nan" else tamiyo.head_inf_latch)[head] = True


def apply_performance_degradation(
    run: RunState, event: Event, payload: PerformanceDegradationPayload
) -> None:
    """PERFORMANCE_DEGRADATION: an environment fell below its rolling accuracy."""
    run.tallies.add(counted.PERFORMANCE_DEGRADATIONS)


def apply_reward_hacking(
    run: RunState, event: Event, payload: RewardHackingSuspectedPayload
) -> None:
    """REWARD_HACKING_SUSPECTED."""
    run.tallies.add(counted.REWARD_HACKING, payload.pattern)


def apply_episode_outcome(run: RunState, event: Event, payload: EpisodeOutcomePayload) -> None:
    """EPISODE_OUTCOME."""
    outcome = payload.outcome_type or "unknown"
    tallies, distributions, episodes = run.tallies, run.distributions, run.episodes
    tallies.add(counted.EPISODES, outcome)
    distributions.observe(counted.EPISODE_REWARD, payload.episode_reward)
    distributions.observe(counted.EPISODE_FINAL_ACCURACY, payload.final_accuracy / 100.0)
    if payload.episode_length is not None:
        episodes.lengths.append(payload.episode_length)
    if payload.outcome_type is not None:
        run.outcome_reported = True
    episodes.outcomes.append(outcome == "success")
    episodes.successes += outcome == "success"
    episodes.timeouts += outcome == "timeout"
    for name, count in (
        ("germinations", payload.germinate_count),
        ("prunes", payload.prune_count),
        ("fossilizations", payload.fossilize_count),
    ):
        if count is not None:
            setattr(episodes, name, (getattr(episodes, name) or 0) + count)
    env = run.env(payload.env_id)
    if env is None:
        tallies.add(counted.EVENTS_OUT_OF_BOUNDS)
        return
    run.last_outcome[payload.env_id] = payload
    run.touched.envs.add(payload.env_id)


def apply_phase_profile(run: RunState, event: Event, payload: PhaseProfileReport) -> None:
    """PHASE_PROFILE_COMPLETED: where the trainer's time went."""
    phases = tuple(payload.phases)
    if not _KNOWN_PHASES.issuperset(phases):
        for phase, timing in payload.phases.items():
            run.distributions.observe(counted.PHASE_DURATION, timing.wall_ms / 1000.0, phase)
            run.tallies.add(counted.PHASE_CPU_SECONDS, phase, by=timing.python_cpu_ms / 1000.0)
        return
    timings = payload.phases.values()
    if phases:
        run.distributions.hold(_durations_of(phases), [each.wall_ms / 1000.0 for each in timings])
    for phase, timing in payload.phases.items():
        run.tallies.add_to(_CPU_OF_PHASE[phase], timing.python_cpu_ms / 1000.0)


@lru_cache(maxsize=64)
def _durations_of(phases: tuple[str, ...]) -> HistogramRow:
    return HistogramRow(tuple((counted.PHASE_DURATION, (phase,)) for phase in phases))


def apply_memory_warning(run: RunState, event: Event, payload: MemoryWarningPayload) -> None:
    """MEMORY_WARNING."""
    run.tallies.add(counted.MEMORY_WARNINGS)


def apply_allocator_stats(run: RunState, event: Event, payload: AllocatorStatsPayload) -> None:
    """ALLOCATOR_STATS: torch's CUDA allocator, one device."""
    run.see_memory(of_allocator(payload), payload.device)


def apply_infrastructure(
    run: RunState, event: Event, payload: InfrastructureSnapshotPayload
) -> None:
    """INFRASTRUCTURE_SNAPSHOT: torch.compile, memory and step times, every N batches."""
    run.see_memory(of_infrastructure(payload))
    for phase, times in (payload.phase_times_ms or {}).items():
        for milliseconds in times:
            run.distributions.observe(counted.TORCH_PHASE_DURATION, milliseconds / 1000.0, phase)


def apply_morphology(run: RunState, event: Event, payload: MorphologyCausalLogPayload) -> None:
    """MORPHOLOGY_CAUSAL_LOG: the governor's word on each change of a network's shape."""
    approved = payload.governor_approved
    run.tallies.add(
        counted.MORPHOLOGY_EVENTS,
        payload.phase,
        payload.operation,
        "unknown" if approved is None else "approved" if approved else "refused",
    )


def apply_topology_manifest(run: RunState, event: Event, payload: TopologyManifestPayload) -> None:
    """TOPOLOGY_MANIFEST_RECORDED: did a replayed topology match the one recorded?"""
    match = payload.manifest_match
    run.tallies.add(
        counted.TOPOLOGY_MANIFESTS,
        payload.manifest_role,
        "unknown" if match is None else "match" if match else "mismatch",
    )
