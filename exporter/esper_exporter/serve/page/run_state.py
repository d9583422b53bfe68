"""A run as JSON: a summary for the list of runs, and all details for its page."""

from __future__ import annotations

from hashlib import blake2s

from esper_exporter import health
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.serve.page.environments import environment_json, environments_json, shown
from esper_exporter.serve.page.head_grid import (
    STATES,
    footer_json,
    head_json,
    head_state,
    latch_json,
    panel_heads,
    read_head,
)
from esper_exporter.serve.page.numbers import Json, level_of, number, unix
from esper_exporter.serve.page.verdict import verdict_json
from esper_exporter.state import counted
from esper_exporter.state.counters import Counter
from esper_exporter.state.decision import DecisionSnapshot
from esper_exporter.state.history import RunHistory
from esper_exporter.state.registry import Entry
from esper_exporter.state.run import RunState
from esper_exporter.state.torch_memory import GIB


def run_key(entry: Entry) -> str:
    """A short key for a run in URLs, stable for as long as the exporter keeps the run."""
    labels = "\0".join(value for _, value in entry.state.identity.labels())
    return blake2s(labels.encode("utf-8", "replace"), digest_size=6).hexdigest()


def failure_of(run: RunState) -> str | None:
    """Why the run failed: how its process ended, as in esper_run_failed, else ``nonfinite`` once
    the trainer gave up."""
    if run.failure is not None:
        return run.failure
    return "nonfinite" if gave_up(run) else None


def gave_up(run: RunState) -> bool:
    """Whether the trainer itself reported that it stopped after non-finite updates. The run has
    failed by that, also where no record says how the process ended, as in a recording."""
    return bool(run.tallies.get(counted.FINITENESS_FAILURES)) and run.latched_last


def silence(entry: Entry, now: float) -> float | None:
    """Seconds since the last event arrived; None before the first."""
    arrived = entry.history.arrived
    if arrived is None:
        last = entry.state.last_event_at
        return None if last is None else max(0.0, now - last.timestamp())
    return max(0.0, now - arrived)


def state_of(entry: Entry, now: float, replayed: bool, exhausted: bool) -> str:
    """``waiting``, ``running``, ``stalled``, ``ended``, ``finished``, ``failed``, ``superseded``.

    ``replayed``: the events come from a recording, which never stalls; ``exhausted``: the
    recording has ended.
    """
    run = entry.state
    if failure_of(run) is not None:
        return "failed"
    snapshot = run.snapshot
    if run.finished or 0 < snapshot.max_batches <= snapshot.current_batch:
        return "finished"
    if run.ended_at is not None:
        return "ended"
    if not run.active:
        return "superseded"
    if run.last_event_at is None and not run.began:
        return "waiting"
    if exhausted:
        return "ended"
    quiet = silence(entry, now)
    if not replayed and quiet is not None and quiet > _patience(run):
        return "stalled"
    return "running"


def _patience(run: RunState) -> float:
    """How long the run may be silent, as in the rule EsperTelemetryStale."""
    updates = run.tallies.get(counted.UPDATES)
    if not updates:
        return health.TELEMETRY_STALE_FIRST_UPDATE_SECONDS
    age = _span(run)
    interval = (age or 0.0) / updates
    return max(health.TELEMETRY_STALE_INTERVALS * interval, health.TELEMETRY_STALE_SECONDS)


def _span(run: RunState) -> float | None:
    """Seconds from the run's start to its last event, by the events' timestamps."""
    if run.started_at is None or run.last_event_at is None:
        return None
    return max(0.0, (run.last_event_at - run.started_at).total_seconds())


def _total(run: RunState, counter: Counter) -> int:
    """A counter over all its labels."""
    return int(sum(n for (found, _), n in run.tallies.values.items() if found is counter))


def _mean_accuracy(run: RunState) -> float | None:
    """Mean over the environments that have finished an epoch, in percent. A poll does not
    refresh the run's summary: that would cost more than the rest of the answer."""
    measured = [
        env.host_accuracy
        for env in run.snapshot.envs.values()
        if env.accuracy_history and env.host_accuracy is not None
    ]
    return sum(measured) / len(measured) if measured else None


def summary_json(entry: Entry, state: str, now: float) -> Json:
    """The run's summary."""
    run, history = entry.state, entry.history
    snapshot, tamiyo = run.snapshot, run.snapshot.tamiyo
    measured = tamiyo.ppo_data_received
    failure = failure_of(run)
    quiet = silence(entry, now)
    heads = panel_heads(run)
    norm = getattr(run.update, "pre_clip_grad_norm", None)
    if norm is None and measured:
        norm = tamiyo.grad_norm
    identity = run.identity
    return {
        "key": run_key(entry),
        "run_id": identity.run_id,
        "group": identity.group_id,
        "rank": identity.rank,
        "world_size": getattr(run.started, "world_size", None),
        "task": snapshot.task_name or None,
        "state": state,
        "failure": failure,
        "gave_up": gave_up(run),
        "verdict": verdict_json(run, history, state, run.failure, gave_up(run)),
        "silence": quiet,
        "started": unix(run.started_at),
        "last_event": unix(run.last_event_at),
        "ended": unix(run.ended_at),
        "elapsed": _span(run),
        "batch": snapshot.current_batch if run.batch_ended else None,
        "batches": snapshot.max_batches or None,
        "episode": snapshot.current_episode if run.began else None,
        "episodes": snapshot.run_config.n_episodes or snapshot.batch_total_episodes or None,
        "epoch": snapshot.current_epoch or None,
        "epochs": snapshot.max_epochs or None,
        "updates": int(run.tallies.get(counted.UPDATES)),
        "update": history.number or None,
        "events": snapshot.total_events_received,
        "latched": run.latches.lit(),
        "watched": len(run.latches.heads) + len(run.latches.sources),
        "return": number(tamiyo.current_episode_return) if run.batch_ended else None,
        "accuracy": number(_mean_accuracy(run)),
        "kl": number(tamiyo.kl_divergence) if measured else None,
        "kl_level": level_of(tamiyo.kl_divergence, health.kl_level(tamiyo.kl_divergence))
        if measured
        else "none",
        "grad_norm": number(norm),
        "grad_norm_level": level_of(norm, health.grad_norm_level(norm)),
        "clip_fraction": number(tamiyo.clip_fraction) if measured else None,
        "clip_fraction_level": level_of(
            tamiyo.clip_fraction, health.clip_fraction_level(tamiyo.clip_fraction)
        )
        if measured
        else "none",
        "entropy": number(tamiyo.entropy) if measured else None,
        "epochs_per_second": number(snapshot.vitals.epochs_per_second)
        if snapshot.vitals.throughput_present
        else None,
        "fossilised": snapshot.cumulative_fossilized,
        "rollbacks": _total(run, counted.ROLLBACKS),
        "head_states": [
            [head, (found := head_state(run, head, read_head(run, head))).value, STATES[found]]
            for head in heads
        ],
        "latched_heads": sorted({head for head, _ in run.latches.lit_heads()}),
        "returns": [number(row.mean_return) for row in list(history.updates)[-50:]],
    }


def detail_json(entry: Entry, env_id: int | None, over: bool) -> Json:
    """All details of a run, and of one of its environments if its drawer is open. ``over``: no more
    events are expected of it."""
    run, history = entry.state, entry.history
    opened = None if env_id is None else run.snapshot.envs.get(env_id)
    return {
        "key": run_key(entry),
        "heads": [head_json(run, history, head) for head in panel_heads(run)],
        "sources": [
            {"name": source, **latch_json(latch, history.latches.get(source))}
            for source, latch in run.latches.sources.items()
        ],
        "footer": footer_json(run),
        "decisions": [_decision(decision) for decision in run.snapshot.tamiyo.recent_decisions],
        "policy": _policy(run, history),
        "envs": environments_json(run, over),
        "env": None if opened is None else environment_json(run, shown(run, opened, over)),
        "training": _training(run),
        "config": _config(run),
    }


def _decision(made: DecisionSnapshot) -> Json:
    at = made.timestamp.timestamp()
    # Without telemetry of the heads, the action's confidence is that of operation and slot.
    confidence: dict[str, float | None] = {
        **made.confidences,
        **{head: made.confidences.get(head) or made.confidence for head in ("op", "slot")},
    }
    return {
        "id": made.decision_id or f"{made.env_id}@{at}",
        "time": at,
        "env": made.env_id,
        "op": made.chosen_action,
        "success": made.action_success,
        "confidence": number(made.confidence),
        "choices": {
            head: [
                made.chosen_action if head == "op" else made.choices.get(head),
                number(confidence.get(head)),
            ]
            for head in HEADS
        },
        "alternatives": [[op, number(share)] for op, share in made.alternatives],
        "value": number(made.expected_value),
        "reward": number(made.actual_reward),
        "advantage": number(made.td_advantage),
        "entropy": number(made.decision_entropy),
    }


def _policy(run: RunState, history: RunHistory) -> Json:
    tamiyo, update = run.snapshot.tamiyo, run.update
    empty: Json = {
        "updates": int(run.tallies.get(counted.UPDATES)),
        "skipped": _total(run, counted.UPDATES_SKIPPED),
        "number": history.number or None,
        "last": unix(run.last_update_at),
        "values": {},
        "levels": {},
    }
    if not tamiyo.ppo_data_received:
        return empty
    norm = getattr(update, "pre_clip_grad_norm", None)
    before = tamiyo.grad_norm if norm is None else norm
    values = {
        "return": tamiyo.current_episode_return if run.batch_ended else None,
        "return_p10": tamiyo.value_function.return_p10 if update is not None else None,
        "return_p90": tamiyo.value_function.return_p90 if update is not None else None,
        "grad_norm": before,
        "grad_norm_clipped": tamiyo.grad_norm if norm is not None else None,
        "kl": tamiyo.kl_divergence,
        "clip_fraction": tamiyo.clip_fraction,
        "entropy": tamiyo.entropy,
        "explained_variance": tamiyo.explained_variance,
        "policy_loss": tamiyo.policy_loss,
        "value_loss": tamiyo.value_loss,
        "learning_rate": tamiyo.learning_rate,
        "entropy_coef": tamiyo.entropy_coef,
        "ratio_max": tamiyo.ratio_max,
        "update_milliseconds": tamiyo.update_time_ms,
    }
    levels = {
        "grad_norm": level_of(before, health.grad_norm_level(before)),
        "kl": level_of(tamiyo.kl_divergence, health.kl_level(tamiyo.kl_divergence)),
        "clip_fraction": level_of(
            tamiyo.clip_fraction, health.clip_fraction_level(tamiyo.clip_fraction)
        ),
        "explained_variance": level_of(
            tamiyo.explained_variance, health.explained_variance_level(tamiyo.explained_variance)
        ),
    }
    if isinstance(number(tamiyo.explained_variance), str):
        levels["explained_variance"] = "none"  # NaN by definition where the returns hardly vary
    for name, value in values.items():
        levels.setdefault(name, "crit" if isinstance(number(value), str) else "none")
    return {
        **empty,
        "values": {name: number(value) for name, value in values.items()},
        "levels": levels,
    }


def _training(run: RunState) -> Json:
    """The run's pace and memory."""
    vitals, tamiyo = run.snapshot.vitals, run.snapshot.tamiyo
    measured = tamiyo.ppo_data_received
    wait = getattr(run.update, "dataloader_wait_ratio", None)
    return {
        "epochs_per_second": number(vitals.epochs_per_second)
        if vitals.throughput_present
        else None,
        "batches_per_hour": number(vitals.batches_per_hour) if vitals.throughput_present else None,
        "update_milliseconds": number(tamiyo.update_time_ms) if measured else None,
        "data_wait": number(wait),
        "torch_memory": [
            {
                "device": device,
                "allocated_gib": number(_gib(memory.allocated)),
                "reserved_gib": number(_gib(memory.reserved)),
                "peak_gib": number(_gib(memory.peak)),
                "fragmentation": number(memory.fragmentation),
            }
            for device, memory in run.torch_memory.items()
        ],
    }


def _config(run: RunState) -> Json:
    """The fields of TRAINING_STARTED; empty before the event."""
    if run.started is None:
        return {}
    reported = {name: getattr(run.started, name) for name in run.started.__struct_fields__}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in reported.items()
        if value is not None and value != ""
    }


def _gib(count: float | None) -> float | None:
    return None if count is None else count / GIB
