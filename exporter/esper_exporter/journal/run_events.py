"""Adds what each event reports about a run to its record."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from esper_exporter.journal.columns import ENDED, GPU_FAULT, tables
from esper_exporter.journal.record import Ending, Incident, Nonfinite, Rollback, RunRecord, Update
from esper_exporter.state.latches import FINITENESS_ANOMALIES, parse_finiteness_detail

WANTED = frozenset(
    {
        "TRAINING_STARTED",
        "CHECKPOINT_LOADED",
        "TAMIYO_POLICY_UPDATE",
        "TOLARIA_BATCH_COMPLETED",
        "TOLARIA_ROLLBACK",
        "NUMERICAL_INSTABILITY_DETECTED",
        "RATIO_EXPLOSION_DETECTED",
        "RATIO_COLLAPSE_DETECTED",
        "VALUE_COLLAPSE_DETECTED",
        "GRADIENT_ANOMALY",
        "GRADIENT_PATHOLOGY_DETECTED",
        "ALLOCATOR_STATS",
        "INFRASTRUCTURE_SNAPSHOT",
        "MEMORY_WARNING",
        "PHASE_PROFILE_COMPLETED",
        "EPISODE_OUTCOME",
        ENDED,
        GPU_FAULT,
    }
)

_SCALARS = {"policy_loss": "loss", "value_loss": "values", "ratio_max": "ratio"}
"""Fields of an update, and the source that is not finite if they are not."""

_LSTM = (
    ("lstm_has_nan", "nan"),
    ("lstm_has_inf", "inf"),
    ("rollout_lstm_has_nan", "nan"),
    ("rollout_lstm_has_inf", "inf"),
)

Row = dict[str, Any]
"""An event: ``event_type``, ``timestamp`` (aware), ``group_id``, ``seq``, ``data``; from a journal
also ``run_id`` and ``rank``."""


def ignore_event(run: RunRecord, row: Row, data: dict[str, Any]) -> None:
    return None


def _update(run: RunRecord, row: Row, data: dict[str, Any]) -> None:
    batch = data.get("batch")
    number = batch if isinstance(batch, int) and batch > 0 else run.current_update
    time, seq = row["timestamp"], row["seq"]
    run.updates.append(Update(number, time, seq, data))

    def add(source: str, name: str | None, kind: str, detail: str = "") -> None:
        run.nonfinite.append(Nonfinite(number, time, seq, source, name, kind, False, detail))

    for kind in ("nan", "inf"):
        for head, up in _items(data.get(f"head_{kind}_detected")):
            if up:
                add("log_probs", head, kind)
    layers = data.get("grad_nan_layers") or []
    norm = data.get("pre_clip_grad_norm") or data.get("grad_norm")
    for layer in layers if isinstance(layers, list | tuple) else []:
        add("gradients", str(layer), "nan")
    broken = _broken(norm)
    for kind, count in (("nan", data.get("nan_grad_count")), ("inf", data.get("inf_grad_count"))):
        if count and not layers:
            add("gradients", None, kind)
            broken = None
    if broken and not layers:
        add("gradients", None, broken)
    for field, source in _SCALARS.items():
        if how := _broken(data.get(field)):
            add(source, None, how, field.replace("_", " "))
    for field, kind in _LSTM:
        if data.get(field) is True:
            add("lstm", None, kind)


def _broken(value: Any) -> str | None:
    """How a value is not finite, None for one that is."""
    if not isinstance(value, float) or math.isfinite(value):
        return None
    return "nan" if value != value else "inf"


def _items(values: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(values, dict):
        return values.items()
    return values or ()  # pairs, as Parquet's maps are read


def _batch(run: RunRecord, row: Row, data: dict[str, Any]) -> None:
    number = data.get("batch_idx")
    run.batches.append(
        {
            "number": number if isinstance(number, int) else len(run.batches) + 1,
            "time": row["timestamp"],
            "accuracy": data.get("avg_accuracy"),
            "rolling": data.get("rolling_accuracy"),
            "reward": data.get("avg_reward"),
            "seq": row["seq"],
        }
    )


def _rollback(run: RunRecord, row: Row, data: dict[str, Any]) -> None:
    env = data.get("env_id")
    loss = data.get("loss_at_panic")
    run.rollbacks.append(
        Rollback(
            run.done_batches + 1,
            row["timestamp"],
            row["seq"],
            env if isinstance(env, int) else -1,
            str(data.get("reason") or data.get("panic_reason") or ""),
            loss if isinstance(loss, float) else None,
        )
    )


def _anomaly(run: RunRecord, row: Row, data: dict[str, Any]) -> None:
    kind = str(data.get("anomaly_type") or row["event_type"].lower())
    detail = str(data.get("detail") or "")
    time, seq = row["timestamp"], row["seq"]
    batch = data.get("batch")
    # An update that was skipped carries batch 0: it is the one after the last that ended.
    number = batch if isinstance(batch, int) and batch > 0 else run.done_batches + 1
    if kind in FINITENESS_ANOMALIES or kind == "nonfinite_detected":
        skipped = kind in FINITENESS_ANOMALIES
        if skipped and number not in run.skipped:
            run.skipped.append(number)
        findings = parse_finiteness_detail(detail)
        found = [(each.source, each.head, name) for each in findings for name in each.kinds]
        for source, head, name in found if findings else [("other", None, "nan")]:
            run.nonfinite.append(Nonfinite(number, time, seq, source, head, name, skipped, detail))
    run.incidents.append(Incident(kind, number, time, seq, detail))


def _memory(run: RunRecord, row: Row, data: dict[str, Any]) -> None:
    ooms = data.get("num_ooms") or data.get("cuda_oom_events")
    known = [each for each in run.incidents if each.kind == "cuda_oom"]
    if isinstance(ooms, int) and ooms > 0 and not known:
        run.incidents.append(
            Incident("cuda_oom", run.current_update, row["timestamp"], row["seq"], f"{ooms} times")
        )


def _phases(run: RunRecord, row: Row, data: dict[str, Any]) -> None:
    phases = data.get("phases")
    if isinstance(phases, dict) and "ppo_update" in phases:
        run.update_ran_at = (row["timestamp"], row["seq"])
        run.updates_ran += 1


def _outcome(run: RunRecord, row: Row, data: dict[str, Any]) -> None:
    run.outcomes += 1


def _ended(run: RunRecord, row: Row, data: dict[str, Any]) -> None:
    run.orphaned = False
    known = run.ending
    if known is not None and known.reason != "finished" and not data.get("exit_code"):
        return  # what the process itself said is more than what is seen from outside
    run.ending = Ending(
        str(data.get("reason") or "finished"),
        row["timestamp"],
        str(data.get("detail") or ""),
        data.get("exit_code"),
        data.get("signal"),
    )


def _gpu(run: RunRecord, row: Row, data: dict[str, Any]) -> None:
    detail = f"{data.get('kind')} on GPU {data.get('gpu')} ({data.get('uuid')})"
    run.incidents.append(
        Incident("gpu_fault", run.current_update, row["timestamp"], row["seq"], detail)
    )


EVENT_READERS = {
    "TAMIYO_POLICY_UPDATE": _update,
    "TOLARIA_BATCH_COMPLETED": _batch,
    "TOLARIA_ROLLBACK": _rollback,
    "PHASE_PROFILE_COMPLETED": _phases,
    "EPISODE_OUTCOME": _outcome,
    "ALLOCATOR_STATS": _memory,
    "INFRASTRUCTURE_SNAPSHOT": _memory,
    ENDED: _ended,
    GPU_FAULT: _gpu,
    **{
        name: _anomaly
        for name, table in tables().items()
        if name in WANTED and any(column.name == "anomaly_type" for column in table.columns)
    },
}
