"""Runs to look at: exporters that were fed what the page must be able to show."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from esper_exporter import Exporter
from esper_exporter.contract.vocabulary import BLUEPRINTS, OPS
from support.recordings import telemetry_lines
from support.states import NOON, event, started, update

HEADS = (
    "op",
    "slot",
    "blueprint",
    "style",
    "tempo",
    "alpha_target",
    "alpha_speed",
    "alpha_curve",
)
STAGES = ("GERMINATED", "TRAINING", "BLENDING", "HOLDING", "FOSSILIZED")


def quiet(**options: Any) -> Exporter:
    """An exporter on a free port of the loopback that leaves nothing behind."""
    settings = {"state_dir": "off", "watch_process": False, "linger": 0.0} | options
    return Exporter(port=0, gpu_vitals="off", host_vitals="off", **settings)


def recorded(name: str, events: int | None = None) -> Exporter:
    """An exporter that was fed the first events of a recording."""
    exporter = quiet()
    for line in telemetry_lines(name)[:events]:
        exporter.emit_line(line)
    return exporter


def heads_update(seconds: float = 1.0, /, **heads: dict[str, float | None]) -> dict[str, Any]:
    """A policy update that reports ``entropy``, ``grad_norm`` and ``ratio_max`` of heads."""
    answer = {
        f"head_{head}_{what}": value
        for head, values in heads.items()
        for what, value in values.items()
    }
    return update(seconds, **answer)


def epoch(env: int, number: int, accuracy: float, seeds: dict[str, Any], at: float) -> Any:
    data = {
        "env_id": env,
        "val_accuracy": accuracy,
        "val_loss": 1.5,
        "inner_epoch": number,
        "seeds": seeds,
    }
    return event("TOLARIA_EPOCH_COMPLETED", data, at)


def decision(at: float, env: int = 0, op: str = "GERMINATE", **changes: Any) -> dict[str, Any]:
    """A last_action analytics snapshot."""
    heads = ("op", "slot", "blueprint", "style", "tempo", "alpha_target", "alpha_speed", "curve")
    telemetry = {f"{head}_confidence": 0.6 for head in heads}
    telemetry |= {f"{head}_entropy": 0.5 for head in heads}
    data = {
        "kind": "last_action",
        "env_id": env,
        "action_name": op,
        "action_confidence": 0.6,
        "total_reward": 0.1,
        "value_estimate": 0.2,
        "slot_id": "r0c1",
        "blueprint_id": "conv_light",
        "style": "LINEAR_ADD",
        "tempo_idx": 1,
        "alpha_target": 0.7,
        "alpha_speed": "MEDIUM",
        "alpha_curve": "COSINE",
        "head_telemetry": telemetry,
        "alternatives": [["WAIT", 0.3], ["PRUNE", 0.1]],
    } | changes
    return event("ANALYTICS_SNAPSHOT", data, at, event_id=f"{int(at * 10):08d}-d{env}")


def wide(envs: int = 64, slots: int = 9, epochs: int = 50) -> Exporter:
    """Many environments with many slots, every one with a history."""
    chance = random.Random(7)
    names = [f"r{place // 3}c{place % 3}" for place in range(slots)]
    exporter = quiet(run_id=f"wide-{envs}x{slots}")
    exporter.emit(started(n_envs=envs, slot_ids=names, max_epochs=epochs, task="cifar10"))
    exporter.emit(heads_update(0.5, **{h: {"entropy": 0.5, "grad_norm": 0.5} for h in HEADS}))
    for number in range(1, epochs + 1):
        for env in range(envs):
            seeds = {
                name: {
                    "stage": STAGES[(env + place) % len(STAGES)],
                    "blueprint_id": BLUEPRINTS[1 + (env * 7 + place) % (len(BLUEPRINTS) - 1)],
                    "accuracy_delta": chance.uniform(-4, 8),
                    "epochs_in_stage": number,
                    "alpha": ((env + place) % 11) / 10,
                }
                for place, name in enumerate(names)
                if (env + place) % 4
            }
            accuracy = 40 + env % 30 + number / 3 + chance.uniform(-1, 1)
            if env in (17, 29) and number > 25:
                accuracy -= (number - 25) * 1.6  # these fall, epoch by epoch
            exporter.emit(epoch(env, number, accuracy, seeds, number))
            exporter.emit(decision(number + env / 100, env, OPS[(env + number) % len(OPS)]))
    return exporter


def own_heads() -> Exporter:
    """A policy with custom heads, more than a grid of eight holds."""
    names = [f"joint_{number}" for number in range(11)]
    exporter = quiet(run_id="own-heads")
    exporter.emit(started(action_heads=names, slot_ids=[], n_envs=1))
    heads = {
        name: {"entropy": 0.05 * place, "grad_norm": 0.02 * 3**place, "ratio_max": 1 + place / 20}
        for place, name in enumerate(names)
    }
    exporter.emit(update(1.0, action_heads=names, head_updates=heads))
    exporter.emit(update(2.0, action_heads=names, head_updates=heads))
    return exporter


def two_groups() -> Exporter:
    """An A/B test: two groups in one process, one of them with a latch."""
    exporter = quiet()
    for group, seconds in (("shaped", 0.0), ("sparse", 0.5)):
        start = started(episode_id="ab-11", task="cifar_impaired")
        start |= {"group_id": group, "timestamp": NOON + timedelta(seconds=seconds)}
        exporter.emit(start)
        for number in range(1, 6):
            answer = heads_update(number, op={"entropy": 0.5, "grad_norm": 0.5, "ratio_max": 1.0})
            if group == "sparse" and number == 3:
                answer["data"]["head_nan_detected"] = {"op": True}
            exporter.emit(answer | {"group_id": group})
            batch = {
                "episodes_completed": number * 2,
                "batch_idx": number,
                "avg_accuracy": 40.0 + number,
                "avg_reward": number * (1.0 if group == "shaped" else 0.4),
                "total_episodes": 20,
                "n_envs": 2,
            }
            exporter.emit(
                event("TOLARIA_BATCH_COMPLETED", batch, number + 0.1) | {"group_id": group}
            )
    return exporter


HOSTILE_NAMES = {
    what: f"<script>window.hacked='{what}'</script>"
    for what in ("run", "task", "slot", "blueprint", "head", "action", "anomaly", "message")
}
"""Markup by the place where a name may stand."""


def hostile() -> Exporter:
    """Markup wherever a name may stand."""
    bad = HOSTILE_NAMES
    heads = ["op", "slot", "blueprint", bad["head"]]
    exporter = quiet(run_id=bad["run"])
    exporter.emit(
        started(
            task=bad["task"],
            slot_ids=[bad["slot"], "r0c1"],
            n_envs=1,
            reward_mode=bad["message"],
            action_heads=heads,
        )
    )
    updates = {head: {"entropy": 0.5, "grad_norm": 9.0, "ratio_max": 1.0} for head in heads}
    exporter.emit(update(1.0, action_heads=heads, head_updates=updates))
    exporter.emit(
        update(1.1, action_heads=heads, head_updates=updates, head_nan_detected={bad["head"]: True})
    )
    seed = {"stage": "TRAINING", "blueprint_id": bad["blueprint"], "epochs_in_stage": 2}
    exporter.emit(epoch(0, 1, 40.0, {bad["slot"]: seed | {"alpha": 0.5}}, 1.2))
    exporter.emit(
        decision(1.3, 0, bad["action"], slot_id=bad["slot"], blueprint_id=bad["blueprint"])
    )
    anomaly = {
        "anomaly_type": bad["anomaly"],
        "episode": 1,
        "batch": 1,
        "inner_epoch": 1,
        "total_episodes": 10,
        "detail": bad["message"],
    }
    exporter.emit(event("GRADIENT_ANOMALY", anomaly, 1.4))
    return exporter
