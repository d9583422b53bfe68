"""The fields that the domain plan recommends for policies (its C) and for the machinery (its D):
each has a metric, and moves in a training, or there is a reason why not on a CPU."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.small import Trained, train
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.metrics.catalogue import catalogue

MOVING = (
    "approx_kl_max", "kl_reverse", "trust_region_violations",
    "value_prediction_error_mean", "value_prediction_error_std", "td_error_mean", "return_mean",
    "return_std", "value_target_correlation",
    "pre_clip_grad_norm",
    "policy_determinism", "op_distribution",
    "causal_mask_coverage", "gradient_utilization", "grad_norm_per_layer", "grad_norm_ratio",
)  # fmt: skip
BY_HEAD = ("kl", "clip_fraction", "active_ratio")
LATER = ("action_diversity", "dominant_action_ratio")
"""A policy that knows nothing yet hardly does the same twice."""
CONSTANT = {
    "ppo_update_idx": "one update a batch, so it is always the first",
    "log_prob_underflow_count": "0 in a healthy policy",
    "numerical_stability_score": "1 in a healthy policy",
    "grad_clip_fraction": "1 or 0: the share of an update's steps that were clipped",
    "valid_sample_ratio": "1: no step of an episode is padding",
}
NOW_AND_THEN = ("policy_update_magnitude", "grad_zero_fraction")
"""Every tenth update."""
UNDER_ANOTHER_NAME = {
    "causal_mask_coverage": "esper_tamiyo_head_active_ratio",
    "grad_nan_layers": "esper_tamiyo_layer_grad_norm",
    "optimizer_step_time_ms": "esper_tolaria_step_duration_seconds",
    "host_epoch_time_ms": "esper_tolaria_step_duration_seconds",
}
OF_THE_HOST = (
    "forward_time_ms", "backward_time_ms", "optimizer_step_time_ms", "data_transfer_time_ms",
    "host_epoch_time_ms", "host_train_loss", "host_grad_norm_pre_clip",
)  # fmt: skip
CONSTANT_OF_THE_HOST = {"host_lr": "no schedule"}
OF_THE_LOSS_SCALE = ("loss_scale_updates", "amp_overflow_count", "grad_scaler_state")
OF_THE_COMPILER = (
    "compile_graph_breaks", "compile_recompilations", "compile_cache_hits", "compile_cache_misses",
    "dynamo_guard_failures",
)  # fmt: skip
OF_THE_PHASES = ("avg_forward_time_ms", "avg_backward_time_ms", "avg_optimizer_time_ms")
ABSENT_ON_A_CPU = (
    "gpu_utilization_pct", "gpu_memory_bandwidth_pct", "cuda_memory_allocated_gb",
    "cuda_memory_reserved_gb", "cuda_memory_active_gb", "cuda_memory_inactive_gb",
    "cuda_memory_peak_gb", "cuda_memory_fragmentation", "cuda_oom_events",
    "memory_allocated_delta_gb", "avg_data_transfer_time_ms",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(updates=3, epochs=8, envs=2, amp=True)


def reported(trained: Trained, name: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in trained.file.getvalue().splitlines()]
    return [event["data"] for event in events if event["event_type"] == name]


def seen(updates: list[dict[str, Any]], field: str) -> set[str]:
    return {json.dumps(update[field], sort_keys=True) for update in updates if field in update}


def test_every_field_has_a_metric() -> None:
    fields = {
        *MOVING, *(f"head_{head}_{what}" for head in HEADS for what in BY_HEAD), *LATER, *CONSTANT,
        *NOW_AND_THEN, *OF_THE_HOST, *CONSTANT_OF_THE_HOST, *OF_THE_LOSS_SCALE, *OF_THE_COMPILER,
        *OF_THE_PHASES, *ABSENT_ON_A_CPU, *UNDER_ANOTHER_NAME,
    }  # fmt: skip
    metrics = catalogue().metrics
    sources = " ".join(source for metric in metrics for source in metric.sources)
    sources = " ".join(sources.replace("{head}", head) for head in HEADS)
    missing = {field for field in fields if field not in sources}
    assert missing == set(UNDER_ANOTHER_NAME)
    assert set(UNDER_ANOTHER_NAME.values()) <= {metric.name for metric in metrics}


def test_the_policys_fields_move_or_are_constant_for_a_reason(trained: Trained) -> None:
    updates = reported(trained, "TAMIYO_POLICY_UPDATE")
    assert {field for field in MOVING if len(seen(updates, field)) < 2} == set()
    by_head = {f"head_{head}_{what}" for head in HEADS for what in BY_HEAD}
    assert {field for field in (*CONSTANT, *LATER, *by_head) if not seen(updates, field)} == set()
    assert len(seen(updates, "head_op_kl")) == len(updates)
    assert len(seen(updates, "head_slot_active_ratio")) == len(updates)
    for field in NOW_AND_THEN:
        assert [field in update for update in updates] == [True, False, False]


def test_the_hosts_fields_move(trained: Trained) -> None:
    epochs = reported(trained, "TOLARIA_EPOCH_COMPLETED")
    assert {field for field in OF_THE_HOST if len(seen(epochs, field)) < 2} == set()
    assert all(len(seen(epochs, field)) == 1 for field in CONSTANT_OF_THE_HOST)


def test_mixed_precision_reports_the_loss_scale(trained: Trained) -> None:
    updates = reported(trained, "TAMIYO_POLICY_UPDATE")
    assert {field for field in OF_THE_LOSS_SCALE if not seen(updates, field)} == set()


def test_what_a_cpu_does_not_have_is_absent(trained: Trained) -> None:
    found = reported(trained, "INFRASTRUCTURE_SNAPSHOT")
    assert found
    assert {field for field in OF_THE_PHASES if not seen(found, field)} == set()
    assert {field for field in ABSENT_ON_A_CPU if seen(found, field)} == set()
    page = {name for name, _ in trained.samples}
    assert not [name for name in page if name.startswith("esper_torch_memory_allocated")]


def test_layers_whose_gradient_is_not_finite_are_named() -> None:
    faulty = train("grad-nan@2")
    named = [update.get("grad_nan_layers") for update in reported(faulty, "TAMIYO_POLICY_UPDATE")]
    assert [bool(layers) for layers in named] == [False, True, False]
