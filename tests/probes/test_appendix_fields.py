"""Every field of the plan's Appendices C and D has a metric, and a probe moves it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from esper_exporter import Exporter, PolicyProbe
from esper_exporter.metrics.catalogue import catalogue
from probes.loop import Policy, batch, gradients, probe
from probes.test_probe import FakeScaler
from support.pages import Key, samples

POLICY = {
    "pre_clip_grad_norm": "esper_tamiyo_grad_norm_pre_clip",
    "ppo_update_idx": "esper_tamiyo_update_index",
    "approx_kl_max": "esper_tamiyo_kl_divergence_max_nats",
    "kl_reverse": "esper_tamiyo_kl_reverse_nats",
    "trust_region_violations": "esper_tamiyo_update_trust_region_violations",
    "value_prediction_error_mean": "esper_tamiyo_value_prediction_error_mean",
    "value_prediction_error_std": "esper_tamiyo_value_prediction_error_std",
    "td_error_mean": "esper_tamiyo_td_error_mean",
    "return_mean": "esper_tamiyo_return_mean",
    "return_std": "esper_tamiyo_return_std",
    "value_target_correlation": "esper_tamiyo_value_target_correlation",
    "head_{name}_kl": "esper_tamiyo_head_kl_nats",
    "head_{name}_clip_fraction": "esper_tamiyo_head_clipped_ratio",
    "head_{name}_active_ratio": "esper_tamiyo_head_active_ratio",
    "causal_mask_coverage": "esper_tamiyo_head_active_ratio",
    "policy_determinism": "esper_tamiyo_policy_determinism_ratio",
    "action_diversity": "esper_tamiyo_action_diversity",
    "dominant_action_ratio": "esper_tamiyo_dominant_action_ratio",
    "op_distribution": "esper_tamiyo_op_probability_ratio",
    "log_prob_underflow_count": "esper_tamiyo_update_log_prob_underflows",
    "numerical_stability_score": "esper_tamiyo_numerical_stability_ratio",
    "grad_clip_fraction": "esper_tamiyo_grad_clipped_ratio",
    "valid_sample_ratio": "esper_tamiyo_valid_sample_ratio",
    "policy_update_magnitude": "esper_tamiyo_weight_change_norm",
    "gradient_utilization": "esper_tamiyo_gradient_utilization_ratio",
    "grad_norm_per_layer": "esper_tamiyo_layer_grad_norm",
    "grad_zero_fraction": "esper_tamiyo_grad_zero_ratio",
    "grad_norm_ratio": "esper_tamiyo_layer_grad_norm_spread",
    "grad_nan_layers": "esper_tamiyo_layer_grad_norm",
    "loss_scale_updates": "esper_tamiyo_loss_scale_updates_total",
    "amp_overflow_count": "esper_tamiyo_amp_overflows_total",
    "grad_scaler_state": "esper_torch_grad_scaler_state",
}
HOST = {
    "forward_time_ms": "esper_tolaria_step_duration_seconds",
    "backward_time_ms": "esper_tolaria_step_duration_seconds",
    "optimizer_step_time_ms": "esper_tolaria_step_duration_seconds",
    "data_transfer_time_ms": "esper_tolaria_step_duration_seconds",
    "host_epoch_time_ms": "esper_tolaria_step_duration_seconds",
    "host_train_loss": "esper_tolaria_host_train_loss",
    "host_grad_norm_pre_clip": "esper_tolaria_host_grad_norm_pre_clip",
    "host_lr": "esper_tolaria_host_learning_rate",
}
TIMES = {
    "avg_forward_time_ms": "esper_torch_forward_seconds",
    "avg_backward_time_ms": "esper_torch_backward_seconds",
    "avg_optimizer_time_ms": "esper_torch_optimizer_seconds",
    "avg_data_transfer_time_ms": "esper_torch_data_transfer_seconds",
    "batch_window": "esper_torch_infrastructure_window_batches",
}
# Of the whole process: absent until something in it was compiled (tests/probes/test_probe.py).
COMPILED = {
    "compile_graph_breaks": "esper_torch_compile_graph_breaks",
    "compile_recompilations": "esper_torch_compile_recompilations",
    "compile_cache_hits": "esper_torch_compile_cache_hits",
    "compile_cache_misses": "esper_torch_compile_cache_misses",
    "dynamo_guard_failures": "esper_torch_compile_guard_failures",
}
CUDA_ONLY = {
    "cuda_memory_allocated_gb": "esper_torch_memory_allocated_bytes",
    "cuda_memory_reserved_gb": "esper_torch_memory_reserved_bytes",
    "cuda_memory_active_gb": "esper_torch_memory_active_bytes",
    "cuda_memory_inactive_gb": "esper_torch_memory_inactive_bytes",
    "cuda_memory_peak_gb": "esper_torch_memory_peak_bytes",
    "cuda_memory_fragmentation": "esper_torch_memory_fragmentation_ratio",
    "cuda_oom_events": "esper_torch_memory_ooms_total",
    "memory_allocated_delta_gb": "esper_torch_memory_delta_bytes",
    "gpu_utilization_pct": "esper_torch_gpu_utilization_ratio",
    "gpu_memory_bandwidth_pct": "esper_torch_gpu_memory_bandwidth_ratio",
}
EVERY = POLICY | HOST | TIMES | COMPILED | CUDA_ONLY


def test_every_field_has_a_metric_with_a_source() -> None:
    known = {metric.name: metric for metric in catalogue().metrics}
    assert set(EVERY.values()) <= known.keys()
    assert all(known[name].sources for name in EVERY.values())


def whole_update(measured: PolicyProbe, policy: Policy, seed: int, **changed: Any) -> None:
    """An update in which everything that the probe can measure is handed over."""
    reported = batch(steps=12, seed=seed)
    reported["log_probs"]["op"][5 : 4 + seed] = -60.0
    returns = torch.linspace(-1.0, 1.0 + seed, 12)
    actions = {head: torch.arange(12) % (1 + seed) for head in ("op", "slot", "tempo")}
    actions["alpha_curve"] = torch.zeros(12, dtype=torch.long)
    valid = torch.ones(12, dtype=torch.bool)
    valid[-seed:] = False
    active = {head: torch.arange(12) >= seed for head in reported["log_probs"]}
    with measured.update() as update:
        update.rollout(
            values=returns * 0.5 + torch.sin(returns * seed),
            returns=returns,
            advantages=returns,
            td_errors=returns / seed,
            actions=actions,
            valid=valid,
        )
        update.minibatch(**reported, active=active, valid=valid, **changed)
        for phase in ("forward", "backward", "optimizer", "data_transfer"):
            with measured.phase(phase):
                pass
        gradients(policy, size=0.01 if seed == 1 else 1.0, seed=seed)
        with torch.no_grad():
            policy.body.weight.grad[:seed] = 0.0
        measured.clip_grad_norm_()
        with torch.no_grad():
            policy.body.weight.add_(0.1 * seed)


def of(shown: dict[Key, float], name: str) -> dict[Key, float]:
    return {
        key: number
        for key, number in shown.items()
        if key[0] in (name, f"{name}_sum", f"{name}_count")
    }


@pytest.fixture(scope="module")
def pages() -> list[dict[Key, float]]:
    exporter = Exporter(port=0, state_dir="off", linger=0, run_id="night-7", watch_process=False)
    policy, scaler = Policy(), FakeScaler()
    measured = probe(exporter, policy, scaler=scaler, every=1)
    measured.training_started(n_envs=1, slot_ids=("r0c0",))
    shown = []
    for seed in (1, 2):
        whole_update(measured, policy, seed)
        scaler._scale.mul_(0.5)
        measured.host_epoch(
            0,
            seed,
            val_accuracy=50.0 + seed,
            val_loss=1.0 / seed,
            train_loss=2.0 / seed,
            lr=1e-3 / seed,
            grad_norm_pre_clip=4.0 / seed,
            times_ms=dict.fromkeys(
                ("forward", "backward", "optimizer", "data_transfer", "epoch"), 7.0
            ),
        )
        shown.append(samples(exporter.render().decode()))
    return shown


@pytest.mark.parametrize("field", sorted(POLICY | HOST | TIMES))
def test_it_moves(pages: list[dict[Key, float]], field: str) -> None:
    first, second = (of(shown, EVERY[field]) for shown in pages)
    assert second, f"{EVERY[field]} is absent"
    if field not in ("batch_window", "grad_scaler_state"):
        assert first != second, f"{EVERY[field]} does not change"


@pytest.mark.parametrize("field", sorted(CUDA_ONLY))
def test_without_cuda_it_is_absent(pages: list[dict[Key, float]], field: str) -> None:
    assert of(pages[-1], EVERY[field]) == {}


def test_a_host_s_epoch_reaches_the_page_in_base_units(pages: list[dict[Key, float]]) -> None:
    def one(name: str, **labels: str) -> float:
        wanted = {"env_id": "0", **labels}.items()
        (found,) = [
            number
            for (known, has), number in pages[-1].items()
            if known == name and wanted <= set(has)
        ]
        return found

    assert one("esper_tolaria_host_train_loss") == 1.0
    assert one("esper_tolaria_host_learning_rate") == 5e-4
    assert one("esper_tolaria_host_grad_norm_pre_clip") == 2.0
    for phase in ("forward", "backward", "optimizer", "data_transfer", "epoch"):
        found = [
            number
            for (name, has), number in pages[-1].items()
            if name == "esper_tolaria_step_duration_seconds_sum" and ("phase", phase) in has
        ]
        assert found == [pytest.approx(0.014)]
