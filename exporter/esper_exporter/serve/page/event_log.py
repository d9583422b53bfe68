"""An event as one line of the page's log: word, colour, filter and text.

Colours: the telemetry domain plan, section 3.3: policy updates magenta, epochs and batches blue,
rollbacks red. The text is the trainer's message if there is one, else built from the payload.
"""

from __future__ import annotations

from typing import Any

from esper_exporter.contract.simic import AnomalyDetectedPayload
from esper_exporter.serve.page.numbers import Json
from esper_exporter.state.history import ROUTINE, LoggedEvent
from esper_exporter.state.latches import FINITENESS_ANOMALIES

STYLES = {
    "TRAINING_STARTED": ("run", "run", "text"),
    "CHECKPOINT_LOADED": ("checkpoint", "run", "text"),
    "TAMIYO_POLICY_UPDATE": ("policy update", "policy", "violet"),
    "TAMIYO_INITIATED": ("initiated", "policy", "violet"),
    "TOLARIA_EPOCH_COMPLETED": ("epoch", "envs", "blue"),
    "TOLARIA_BATCH_COMPLETED": ("batch", "envs", "blue"),
    "TOLARIA_ROLLBACK": ("rollback", "faults", "crit"),
    "SEED_GERMINATED": ("germinated", "seeds", "ok"),
    "SEED_STAGE_CHANGED": ("stage", "seeds", "dim"),
    "SEED_GATE_EVALUATED": ("gate", "seeds", "dim"),
    "SEED_FOSSILIZED": ("fossilised", "seeds", "blue"),
    "SEED_PRUNED": ("pruned", "seeds", "dim"),
    "PLATEAU_DETECTED": ("plateau", "envs", "warn"),
    "DEGRADATION_DETECTED": ("degradation", "envs", "warn"),
    "IMPROVEMENT_DETECTED": ("improvement", "envs", "ok"),
    "PERFORMANCE_DEGRADATION": ("degraded", "envs", "warn"),
    "REWARD_HACKING_SUSPECTED": ("hacking?", "faults", "warn"),
    "MEMORY_WARNING": ("memory", "faults", "warn"),
    "EPISODE_OUTCOME": ("episode", "envs", "dim"),
    "COUNTERFACTUAL_MATRIX_COMPUTED": ("matrix", "envs", "dim"),
    "ANALYTICS_SNAPSHOT": ("analytics", "policy", "dim"),
    "MORPHOLOGY_CAUSAL_LOG": ("morphology", "seeds", "dim"),
    "PHASE_PROFILE_COMPLETED": ("profile", "run", "dim"),
    "TOPOLOGY_MANIFEST_RECORDED": ("topology", "seeds", "dim"),
    "ALLOCATOR_STATS": ("allocator", "run", "dim"),
    "INFRASTRUCTURE_SNAPSHOT": ("machine", "run", "dim"),
}
"""Canonical event type → word, filter, colour."""

ANOMALY = ("anomaly", "faults", "warn")
NONFINITE = ("non-finite", "faults", "crit")
LONGEST_TEXT = 300


def line_json(logged: LoggedEvent) -> Json:
    """One line."""
    event = logged.event
    data = event.data
    style = STYLES.get(event.type, ANOMALY)
    if isinstance(data, AnomalyDetectedPayload) and _nonfinite(data):
        style = NONFINITE
    text = _text(event.type, data, event.message)
    if logged.fault:
        style = NONFINITE
        text = f"{logged.fault}: {text}" if text else logged.fault
    word, group, colour = style
    return {
        "seq": logged.seq,
        "time": round(event.timestamp.timestamp(), 3),
        "type": event.name,
        "word": word,
        "group": group,
        "routine": event.type in ROUTINE and not logged.fault,
        "colour": colour,
        "env": getattr(data, "env_id", None),
        "update": logged.number,
        "text": text[:LONGEST_TEXT],
    }


def _nonfinite(data: AnomalyDetectedPayload) -> bool:
    return data.anomaly_type in FINITENESS_ANOMALIES or data.anomaly_type == "nonfinite_detected"


def _signed(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:+.1f}{unit}".replace("-", "−")


def _text(kind: str, data: Any, message: str) -> str:
    if data is None:
        return message
    if isinstance(data, AnomalyDetectedPayload):
        return f"{data.anomaly_type}: {data.detail}" if data.detail else str(data.anomaly_type)
    match kind:
        case "TAMIYO_POLICY_UPDATE":
            parts = []
            if data.kl_divergence is not None:
                parts.append(f"KL {data.kl_divergence:.4f}")
            if data.clip_fraction is not None:
                parts.append(f"clipped {data.clip_fraction:.1%}")
            norm = (
                data.pre_clip_grad_norm if data.pre_clip_grad_norm is not None else data.grad_norm
            )
            if norm is not None:
                parts.append(f"gradient {norm:.2f}")
            return ("skipped; " if data.skipped else "") + ", ".join(parts)
        case "TOLARIA_EPOCH_COMPLETED":
            return f"epoch {data.inner_epoch}, accuracy {data.val_accuracy:.1f} %"
        case "TOLARIA_BATCH_COMPLETED":
            return (
                f"batch {data.batch_idx}, accuracy {data.avg_accuracy:.1f} %,"
                f" reward {_signed(data.avg_reward)}"
            )
        case "TOLARIA_ROLLBACK":
            return f"{data.panic_reason or data.reason}, last good state restored"
        case "SEED_GERMINATED":
            return f"{data.slot_id} {data.blueprint_id}, {data.params:,} parameters"
        case "SEED_STAGE_CHANGED":
            return f"{data.slot_id} {data.from_stage.lower()} → {data.to_stage.lower()}"
        case "SEED_GATE_EVALUATED":
            return f"{data.slot_id} gate {data.gate} {'passed' if data.passed else 'refused'}"
        case "SEED_FOSSILIZED":
            return f"{data.slot_id} {data.blueprint_id} kept, {_signed(data.improvement)} points"
        case "SEED_PRUNED":
            return " ".join(filter(None, (data.slot_id, data.blueprint_id, data.reason)))
        case "EPISODE_OUTCOME":
            return (
                f"{data.outcome_type or 'ended'}, accuracy {data.final_accuracy:.1f} %,"
                f" reward {_signed(data.episode_reward)}"
            )
        case "PERFORMANCE_DEGRADATION":
            return f"{data.current_acc:.1f} %, {data.drop_percent:.1f} % below its rolling mean"
        case "PLATEAU_DETECTED" | "DEGRADATION_DETECTED" | "IMPROVEMENT_DETECTED":
            return (
                f"rolling accuracy {data.rolling_avg_accuracy:.1f} %,"
                f" {_signed(data.rolling_delta)} points"
            )
        case "ANALYTICS_SNAPSHOT":
            what = data.action_name or ""
            return f"{data.kind.replace('_', ' ')} {what}".strip()
        case "MORPHOLOGY_CAUSAL_LOG":
            return f"{data.phase} {data.operation} {data.slot_id}"
        case "TRAINING_STARTED":
            return f"{data.task}: {data.n_envs} environments × {len(data.slot_ids)} slots"
        case "REWARD_HACKING_SUSPECTED":
            return f"{data.pattern} in {data.slot_id}"
    return message if message != kind else ""
