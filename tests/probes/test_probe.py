"""The probe in a loop: what it reports, when, and that it neither raises nor waits."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from esper_exporter import Exporter, PolicyProbe
from esper_exporter.probes.torch import machine
from probes.loop import (
    HEADS,
    INF,
    LATCHED,
    NAN,
    Policy,
    Told,
    batch,
    broken,
    gradients,
    page,
    probe,
)
from support.pages import value, values


def one_update(
    measured: PolicyProbe, policy: Policy, number: int | None = None, **changed: Any
) -> None:
    with measured.update(batch=number) as update:
        update.minibatch(**{**batch(), **changed})
        gradients(policy)
        measured.clip_grad_norm_()


def test_updates_are_numbered_from_one_anew_in_each_batch() -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy)
    for number in (7, 7, 7, 8):
        one_update(measured, policy, number)
    reported = [(each["batch"], each["ppo_update_idx"]) for each in sink.of("TAMIYO_POLICY_UPDATE")]
    assert reported == [(7, 1), (7, 2), (7, 3), (8, 1)]
    measured = probe(sink, policy)
    for _ in range(3):
        one_update(measured, policy)
    assert [each["ppo_update_idx"] for each in sink.of("TAMIYO_POLICY_UPDATE")[4:]] == [1, 2, 3]


def test_an_update_reaches_the_page(exporter: Exporter) -> None:
    policy = Policy()
    measured = probe(exporter, policy, optimizer=torch.optim.Adam(policy.parameters(), 3e-4))
    measured.training_started(task="digits", slot_ids=("r0c0",))
    one_update(measured, policy)
    reported = page(exporter)
    assert value(reported, "esper_tamiyo_grad_norm_pre_clip") > 1.0
    assert value(reported, "esper_tamiyo_grad_norm") == pytest.approx(0.5, abs=1e-3)
    assert value(reported, "esper_tamiyo_learning_rate") == 3e-4
    assert value(reported, "esper_tamiyo_update_index") == 1
    assert value(reported, "esper_tamiyo_head_entropy_nats", head="op") > 0
    assert value(reported, LATCHED, head="op", kind="nan") == 0
    assert value(reported, "esper_exporter_internal_errors_total", where="probe") == 0


def test_what_the_loop_did_not_say_of_the_run_is_absent(exporter: Exporter) -> None:
    probe(exporter).training_started(task="digits")
    reported = page(exporter)
    for name in (
        *("initial_learning_rate", "initial_entropy_coefficient", "param_budget"),
        *("configured_episodes", "batches", "episode_epochs"),
    ):
        assert value(reported, f"esper_run_{name}") is None, name
    assert 'seed=""' in reported
    assert value(reported, "esper_run_clip_ratio") == 0.2


@pytest.mark.parametrize(("what", "kind"), [(NAN, "nan"), (INF, "inf"), (-INF, "inf")])
def test_a_latch_is_lit_before_the_update_continues(
    exporter: Exporter, what: float, kind: str
) -> None:
    measured = probe(exporter)
    with measured.update() as update:
        update.minibatch(**{**batch(), **broken("tempo", what)})
        assert value(page(exporter), LATCHED, head="tempo", kind=kind) == 1
        assert value(page(exporter), LATCHED, head="op", kind=kind) == 0


def test_a_latch_outlives_an_update_that_raises(exporter: Exporter) -> None:
    measured = probe(exporter)
    with pytest.raises(ZeroDivisionError), measured.update() as update:
        update.minibatch(**{**batch(), **broken("slot", INF)})
        raise ZeroDivisionError
    reported = page(exporter)
    assert value(reported, LATCHED, head="slot", kind="inf") == 1
    assert value(reported, "esper_tamiyo_updates_total") == 0
    assert value(reported, "esper_tamiyo_updates_skipped_total", reason="nonfinite") == 0


def test_a_skipped_update_counts_once_and_keeps_its_latch(exporter: Exporter) -> None:
    policy = Policy()
    measured = probe(exporter, policy)
    one_update(measured, policy)
    for _ in range(2):
        with measured.update() as update:
            update.minibatch(**{**batch(), **broken("op", NAN)})
            update.skip()
    reported = page(exporter)
    assert value(reported, "esper_tamiyo_updates_total") == 1
    assert value(reported, "esper_tamiyo_updates_skipped_total", reason="nonfinite") == 2
    assert value(reported, "esper_tamiyo_head_nonfinite_updates_total", head="op", kind="nan") == 2


def test_a_fault_in_an_update_that_is_carried_out_counts_once(exporter: Exporter) -> None:
    policy = Policy()
    measured = probe(exporter, policy, dual_emit=True)
    one_update(measured, policy, **broken("op", NAN))
    one_update(measured, policy, **broken("op", NAN))
    one_update(measured, policy)
    reported = page(exporter)
    assert value(reported, "esper_tamiyo_head_nonfinite_updates_total", head="op", kind="nan") == 2
    assert value(reported, "esper_tamiyo_updates_total") == 3
    assert value(reported, "esper_tamiyo_updates_skipped_total", reason="nonfinite") == 0


def test_an_update_that_the_loop_skips_has_that_reason(exporter: Exporter) -> None:
    with probe(exporter).update() as update:
        update.minibatch(**batch())
        update.skip()
    reported = page(exporter)
    assert value(reported, "esper_tamiyo_updates_skipped_total", reason="requested") == 1
    assert value(reported, "esper_tamiyo_nonfinite_latched", source="log_probs") == 0


def test_a_loss_that_is_not_finite_is_a_fault(exporter: Exporter) -> None:
    with probe(exporter).update() as update:
        update.minibatch(**{**batch(), "policy_loss": torch.tensor(NAN)})
    reported, named = page(exporter), {"layer": "policy_loss", "source": "loss", "kind": "nan"}
    assert value(reported, "esper_tamiyo_nonfinite_latched", source="loss") == 1
    assert value(reported, "esper_tamiyo_layer_nonfinite_latched", **named) == 1
    assert value(reported, "esper_tamiyo_layer_nonfinite_first_update", **named) == 1
    assert not any(v for v in values(reported, "esper_tamiyo_head_nonfinite_latched"))


def test_both_names_are_emitted_when_asked() -> None:
    sink, policy = Told(), Policy()
    one_update(probe(sink, policy, dual_emit=True), policy)
    assert sink.of("PPO_UPDATE_COMPLETED") == sink.of("TAMIYO_POLICY_UPDATE") != []


def test_the_loop_s_own_fields_are_reported() -> None:
    sink, policy = Told(), Policy()
    measured = probe(sink, policy)
    with measured.update() as update:
        update.minibatch(**batch())
        gradients(policy)
        measured.clip_grad_norm_()
        update.set(entropy_coef=0.01, early_stop_epoch=2, no_such_field=1)
    assert sink.update["entropy_coef"] == 0.01 and sink.update["early_stop_epoch"] == 2
    assert "no_such_field" not in sink.update


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"heads": {}}, "at least one head"),
        ({"heads": {"two words": 6}}, "letters, digits and underscores"),
        ({"heads": {1: 6}}, "letters, digits and underscores"),
        ({"heads": {"value": 6}}, "the critic's"),
        ({"heads": {"curve": 5}}, "calls it 'alpha_curve'"),
        ({"heads": {f"h{n}": 2 for n in range(65)}}, "at most 64 heads"),
        ({"heads": {"op": 0}}, "number of choices"),
        ({"heads": {"op": 6}, "head_modules": {"opp": nn.Linear(1, 1)}}, "unknown head 'opp'"),
        ({"heads": {"op": 6}, "head_modules": {"op": nn.Linear(1, 1)}}, "no parameters of"),
        ({"heads": {"op": 6}, "every": 0}, "above 0"),
        ({"heads": {"op": 6}, "max_grad_norm": 0.0}, "above 0"),
    ],
)
def test_what_makes_no_sense_is_said_when_it_is_made(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        PolicyProbe(Policy(), Told(), **options)


def test_what_takes_no_events_is_refused() -> None:
    with pytest.raises(TypeError, match="an Exporter is needed, got int"):
        PolicyProbe(Policy(), 1, heads=HEADS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"old_log_probs": {head: torch.zeros(3) for head in HEADS}},
        {"valid": torch.ones(5, dtype=torch.bool)},
        {"policy_loss": torch.zeros(4)},
    ],
)
def test_in_the_loop_its_failures_are_counted_and_training_continues(
    exporter: Exporter, changed: dict[str, Any]
) -> None:
    policy = Policy()
    measured = probe(exporter, policy)
    one_update(measured, policy, **changed)
    one_update(measured, policy)
    reported = page(exporter)
    assert value(reported, "esper_exporter_internal_errors_total", where="probe") == 1
    assert value(reported, "esper_tamiyo_updates_total") == 2


def test_an_exporter_that_raises_does_not_stop_the_training() -> None:
    class Broken(Told):
        def emit(self, event: Any) -> None:
            raise OSError

    sink, policy = Broken(), Policy()
    one_update(probe(sink, policy), policy)
    assert sink.failures > 0


class FakeScaler:
    """The parts of torch.amp.GradScaler that are read."""

    def __init__(self) -> None:
        self._scale = torch.tensor(1024.0)

    def is_enabled(self) -> bool:
        return True


def test_a_falling_loss_scale_is_an_overflow_and_no_fault() -> None:
    sink, policy, scaler = Told(), Policy(), FakeScaler()
    measured = probe(sink, policy, scaler=scaler)
    states = []
    for scales in ((1024.0,), (512.0, 512.0), (1024.0, 2048.0)):
        with measured.update() as update:
            for scale in scales:
                update.minibatch(**batch())
                gradients(policy, INF if scale < scaler._scale else 1.0)
                measured.clip_grad_norm_()
                scaler._scale.fill_(scale)
        states.append(sink.update["grad_scaler_state"])
    assert states == ["stable", "decaying", "growing"]
    assert [u["amp_overflow_count"] for u in sink.of("TAMIYO_POLICY_UPDATE")] == [0, 1, 0]
    assert [u["loss_scale_updates"] for u in sink.of("TAMIYO_POLICY_UPDATE")] == [0, 1, 2]
    assert sink.update["loss_scale"] == 2048.0
    assert sink.anomalies == []


def test_phases_are_timed_and_reported_with_the_closer_updates(exporter: Exporter) -> None:
    policy = Policy()
    measured = probe(exporter, policy)
    for phase in ("forward", "backward", "optimizer", "data_transfer", "epoch", "other"):
        with measured.phase(phase):
            pass
    one_update(measured, policy)
    reported = page(exporter)
    name = "esper_torch_phase_duration_seconds_count"
    for phase in ("forward", "backward", "optimizer", "data_transfer", "epoch"):
        assert value(reported, name, phase=phase) == 1
    assert value(reported, "esper_torch_forward_seconds") >= 0


def test_the_allocator_s_numbers_become_an_infrastructure_snapshot() -> None:
    memory = machine.Memory(torch.device("cpu"))
    stats = {
        "allocated_bytes.all.current": 3 * 2**30,
        "reserved_bytes.all.current": 4 * 2**30,
        "active_bytes.all.current": 3 * 2**30,
        "inactive_split_bytes.all.current": 2**29,
        "allocated_bytes.all.peak": 5 * 2**30,
        "num_ooms": 2,
    }
    assert memory.fields(stats) == {
        "cuda_memory_allocated_gb": 3.0,
        "cuda_memory_reserved_gb": 4.0,
        "cuda_memory_active_gb": 3.0,
        "cuda_memory_inactive_gb": 0.5,
        "cuda_memory_peak_gb": 5.0,
        "cuda_memory_fragmentation": 0.25,
        "cuda_oom_events": 2,
    }
    later = memory.fields({**stats, "allocated_bytes.all.current": 2**31})
    assert later["memory_allocated_delta_gb"] == -1.0
    assert memory.fields(memory.stats()) == {}


def test_the_allocator_s_own_event_reports_the_device(exporter: Exporter) -> None:
    memory = machine.Memory(torch.device("cuda:1"))
    reported = memory.allocator(
        {
            "allocated_bytes.all.current": 3 * 2**30,
            "reserved_bytes.all.current": 4 * 2**30,
            "num_alloc_retries": 5,
            "num_ooms": 2,
        }
    )
    event = {"event_type": "ALLOCATOR_STATS", "timestamp": "2026-06-01T08:00:00+00:00"}
    exporter.emit({**event, "data": {"batch_idx": 1, **reported}})
    page = exporter.render().decode()
    names = ("fragmentation_ratio", "allocation_retries_total", "ooms_total")
    shown = [value(page, f"esper_torch_memory_{name}", device="cuda:1") for name in names]
    assert shown == [0.25, 5.0, 2.0]


def test_torch_compile_s_breaks_and_recompilations_are_counted() -> None:
    code = """
import torch
from esper_exporter.probes.torch.machine import compilation
assert compilation() == {}
def f(x, n):
    y = x + n
    torch._dynamo.graph_break()
    return y * 2
g = torch.compile(f, backend="eager", dynamic=False)
g(torch.ones(3), 1)
before = compilation()
g(torch.ones(4), 1)
after = compilation()
assert before["compile_graph_breaks"] >= 1, before
assert before["compile_recompilations"] == 0, before
assert after["compile_recompilations"] >= 1, after
assert after["dynamo_guard_failures"] >= 1, after
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
