"""attach, on a stand-in with the trainer's seams: what joins, what is lit, what it changes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adapters import stand_in
from adapters.stand_in import HEADS, Hub, VectorizedPPOTrainer, installed
from esper_exporter import Exporter, attach
from probes.test_waiting import LateTransfer
from support.command import environment
from support.pages import samples, value

TESTS = Path(__file__).parents[1]
OPTIONS: dict[str, Any] = {
    "port": 0,
    "state_dir": "off",
    "linger": 0,
    "watch_process": False,
    "gpu_vitals": "off",
    "host_vitals": "off",
}
LATCHED = "esper_tamiyo_head_nonfinite_latched"
SEAMS = {
    *("batch", "update", "rollout", "data", "ratios", "losses", "clipping", "optimizer"),
    *("backward", "host_batch", "host_epoch"),
}


def weights_hash(trainer: VectorizedPPOTrainer) -> str:
    found = hashlib.sha256()
    for parameter in trainer.agent.policy.network.parameters():
        found.update(parameter.detach().numpy().tobytes())
    for state in trainer.agent.optimizer.state.values():
        found.update(state["exp_avg_sq"].numpy().tobytes())
    found.update(torch.get_rng_state().numpy().tobytes())
    return found.hexdigest()


def train(
    attached: bool,
    epochs: int = 1,
    batches: int = 3,
    max_grad_norm: float | None = 1.0,
    before: Callable[[VectorizedPPOTrainer, int], None] = lambda *_: None,
    **options: Any,
) -> tuple[VectorizedPPOTrainer, Exporter | None, str]:
    """Trained for some batches; the page as it is after them."""
    hub = Hub()
    trainer = VectorizedPPOTrainer(hub, "default", epochs, max_grad_norm)
    exporter = attach("night-7", hub=hub, **OPTIONS, **options) if attached else None
    try:
        for batch in range(batches):
            before(trainer, batch)
            trainer._run_batch(batch_idx=batch)
        page = exporter.render().decode() if exporter else ""
    finally:
        if exporter is not None:
            exporter.close()
    return trainer, exporter, page


@pytest.fixture(autouse=True)
def esper() -> Any:
    with installed():
        yield


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_training_is_the_same_to_the_bit(epochs: int) -> None:
    plain, _, _ = train(False, epochs)
    expected = weights_hash(plain)
    measured, _, page = train(True, epochs, after_update_every=1)
    assert weights_hash(measured) == expected
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
    assert value(page, "esper_tamiyo_updates_total") == 3


def test_what_was_measured_joins_the_trainer_s_own_event() -> None:
    trainer, _, page = train(True, epochs=3, after_update_every=1)
    assert value(page, "esper_tamiyo_updates_total") == 3
    assert value(page, "esper_tamiyo_update_index") == 1
    assert value(page, "esper_tamiyo_policy_entropy") == 8.0, "the trainer's own value"
    assert value(page, "esper_tamiyo_grad_norm_step") in (1, 2, 3)
    reported = trainer.hub.events[-2].data
    assert value(page, "esper_tamiyo_grad_norm_pre_clip") == reported.pre_clip_grad_norm
    for name in (
        *("value_prediction_error_mean", "td_error_mean", "kl_divergence_max_nats"),
        *("kl_reverse_nats", "policy_determinism_ratio", "action_diversity"),
        *("weight_change_norm", "grad_zero_ratio", "valid_sample_ratio"),
        *("kl_divergence_after_update_nats", "clipped_after_update_ratio"),
    ):
        assert value(page, f"esper_tamiyo_{name}") is not None, name
    assert value(page, "esper_tamiyo_kl_divergence_after_update_nats") > 0
    assert value(page, "esper_tamiyo_valid_sample_ratio") == pytest.approx(0.8)
    for head in HEADS:
        assert value(page, "esper_tamiyo_head_active_ratio", head=head) is not None
    layers = {dict(key[1]).get("layer") for key in samples(page) if "layer_grad_norm" in key[0]}
    assert {"body", "tempo_head", "state_value_head"} <= layers
    assert not [
        name for (name, _), number in samples(page).items() if "disagree" in name and number
    ]


def test_every_seam_is_reported_in_place() -> None:
    _, _, page = train(True, batches=1)
    shown = {
        dict(labels)["seam"]: number
        for (name, labels), number in samples(page).items()
        if name == "esper_exporter_probe_seams"
    }
    assert shown == dict.fromkeys(SEAMS, 1.0)


@pytest.mark.parametrize(
    ("missing", "seam", "lost"),
    [
        ("compute_losses", "losses", "policy_determinism_ratio"),
        ("compute_ratio_metrics", "ratios", "kl_reverse_nats"),
        ("TamiyoRolloutBuffer", "rollout", "td_error_mean"),
    ],
)
def test_a_seam_that_is_missing_costs_its_fields_only(
    missing: str, seam: str, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    with installed(without=missing):
        module = __import__("sys").modules["esper.simic.agent.ppo_agent"]
        exporter = attach("night-7", hub=Hub(), **OPTIONS)
        setattr(module, missing, getattr(stand_in, missing))
        hub = Hub()
        trainer = VectorizedPPOTrainer(hub, "default", 1, 1.0)
        hub.backends.append(_backend_of(exporter))
        trainer._run_batch(batch_idx=0)
        page = exporter.render().decode()
        exporter.close()
    assert value(page, "esper_exporter_probe_seams", seam=seam) == 0
    assert value(page, "esper_exporter_probe_seams", seam="update") == 1
    assert value(page, f"esper_tamiyo_{lost}") is None
    assert value(page, "esper_tamiyo_weight_change_norm") is not None
    assert sum(f"seam {seam}" in record.getMessage() for record in caplog.records) == 1


def _backend_of(exporter: Exporter) -> Any:
    """The backend that attach gave to its hub."""
    return exporter._closers[0].__closure__[0].cell_contents  # type: ignore[attr-defined]


def test_closing_puts_everything_back() -> None:
    modules = __import__("sys").modules
    agent = modules["esper.simic.agent.ppo_agent"]
    trainer = modules["esper.simic.training.vectorized_trainer"]
    before = (
        stand_in.PPOAgent.update,
        agent.compute_losses,
        trainer.process_train_batch,
        stand_in.VectorizedPPOTrainer._run_batch,
        torch.Tensor.backward,
        nn.utils.clip_grad_norm_,
    )
    hub = Hub()
    exporter = attach("night-7", hub=hub, **OPTIONS)
    assert stand_in.PPOAgent.update is not before[0]
    hub.close()
    exporter.close()
    assert before == (
        stand_in.PPOAgent.update,
        agent.compute_losses,
        trainer.process_train_batch,
        stand_in.VectorizedPPOTrainer._run_batch,
        torch.Tensor.backward,
        nn.utils.clip_grad_norm_,
    )


def test_a_head_that_is_nan_is_lit_before_the_trainer_says_so() -> None:
    pages: list[str] = []

    def break_head(trainer: VectorizedPPOTrainer, batch: int) -> None:
        trainer.agent.policy.fault = ("tempo", float("nan")) if batch == 1 else None
        if batch == 1:
            exporter = _exporter_of(trainer.hub)

            def look(event: Any) -> None:
                if event.event_type.name == "NUMERICAL_INSTABILITY_DETECTED":
                    pages.append(exporter.render().decode())

            first = type("First", (), {"emit": staticmethod(look)})()
            trainer.hub.backends.insert(0, first)

    _, _, page = train(True, before=break_head)
    assert value(pages[0], LATCHED, head="tempo", kind="nan") == 1, "before the hub's queue"
    assert value(page, LATCHED, head="tempo", kind="nan") == 1
    assert value(page, LATCHED, head="op", kind="nan") == 0
    assert value(page, "esper_tamiyo_head_nonfinite_updates_total", head="tempo", kind="nan") == 1
    assert value(page, "esper_tamiyo_updates_total") == 2
    assert value(page, "esper_tamiyo_updates_skipped_total", reason="nonfinite") == 1
    assert value(page, "esper_tamiyo_updates_incomplete_total", reason="skipped") == 1


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("which", ["the anchor's pass too", "from the second step on"])
def test_infinite_logits_are_named_inf_though_the_trainer_sees_nan(epochs: int, which: str) -> None:
    def break_head(trainer: VectorizedPPOTrainer, batch: int) -> None:
        passes: list[int] = []

        def broken(_module: nn.Module, _given: Any, logits: torch.Tensor) -> torch.Tensor | None:
            passes.append(1)
            whole = which == "the anchor's pass too" or epochs == 1
            return logits.abs() * float("inf") if whole or len(passes) > 2 else None

        if batch == 1:
            hooks.append(trainer.agent.policy.network.op_head.register_forward_hook(broken))
        elif hooks:
            hooks.pop().remove()

    hooks: list[Any] = []
    _, _, page = train(True, epochs, before=break_head, after_update_every=0)
    assert value(page, LATCHED, head="op", kind="inf") == 1
    assert value(page, LATCHED, head="op", kind="nan") == 0
    assert value(page, LATCHED, head="tempo", kind="inf") == 0
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0


def test_infinite_logits_are_named_though_the_update_raises_before_it_evaluates() -> None:
    hub = Hub()
    trainer = VectorizedPPOTrainer(hub, "default", 1, 1.0)
    trainer.agent.samples = True
    exporter = attach("night-7", hub=hub, **OPTIONS)
    trainer._run_batch(batch_idx=0)
    trainer.agent.policy.network.op_head.register_forward_hook(
        lambda _module, _given, logits: logits * float("inf")
    )
    with pytest.raises(RuntimeError, match="probability tensor"):
        trainer._run_batch(batch_idx=1)
    page = exporter.render().decode()
    exporter.close()
    assert value(page, LATCHED, head="op", kind="inf") == 1
    assert value(page, LATCHED, head="op", kind="nan") == 0
    assert (
        value(page, "esper_tamiyo_head_nonfinite_first_update", head="op", kind="inf") is not None
    )


@pytest.mark.parametrize("events", [True, False])
def test_an_update_that_arrives_after_its_event_keeps_its_fields(
    events: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA: the copy is still on its way when the trainer's event is there."""
    transfers: list[LateTransfer] = []

    def late_transfer(_device: torch.device) -> LateTransfer:
        transfers.append(LateTransfer())
        return transfers[-1]

    monkeypatch.setattr("esper_exporter.probes.torch.probe.Transfer", late_transfer)
    hub = Hub()
    plain = hub.emit
    if not events:
        # The hub's queue was full.
        hub.emit = lambda kind, **reported: (  # type: ignore[method-assign]
            None if kind == "PPO_UPDATE_COMPLETED" else plain(kind, **reported)
        )
    trainer = VectorizedPPOTrainer(hub, "default", 1, 1.0)
    exporter = attach("night-7", hub=hub, **OPTIONS)
    trainer._run_batch(batch_idx=0)
    page = exporter.render().decode()
    exporter.close()
    assert len(transfers[0].arrivals) == 1
    if events:
        assert value(page, "esper_tamiyo_weight_change_norm") > 0
        assert value(page, "esper_tamiyo_update_index") == 1
    else:
        assert value(page, "esper_tamiyo_updates_incomplete_total", reason="no_event") == 1


def _exporter_of(hub: Hub) -> Exporter:
    found: Exporter = hub.backends[0]._exporter
    return found


KILLED = """
import os, signal, sys
from adapters.stand_in import Hub, VectorizedPPOTrainer, installed
from esper_exporter import attach

class Queueing(Hub):
    def emit(self, kind, **told):  # nothing is delivered before the end
        if kind == "NUMERICAL_INSTABILITY_DETECTED":
            os.kill(os.getpid(), signal.SIGKILL)

with installed():
    hub = Queueing()
    trainer = VectorizedPPOTrainer(hub, "default", 1, 1.0)
    attach("night-7", hub=hub, port=0, state_dir=sys.argv[1], gpu_vitals="off", host_vitals="off")
    trainer._run_batch(batch_idx=0)
    trainer.agent.policy.fault = ("tempo", float("nan"))
    trainer._run_batch(batch_idx=1)
"""


def test_a_latch_is_on_disk_when_the_process_is_killed_before_the_hub_delivers(
    tmp_path: Path,
) -> None:
    places = [str(TESTS.parent / "exporter"), str(TESTS)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=environment(PYTHONPATH=os.pathsep.join(places)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list(tmp_path.glob("*.latches.json"))) == 1
    page = (tmp_path / "esper-night-7-rank0.final.prom").read_text()
    assert value(page, LATCHED, head="tempo", kind="nan") == 1


def test_a_gradient_that_is_nan_is_lit_although_the_trainer_raises() -> None:
    pages: list[str] = []

    def break_gradient(trainer: VectorizedPPOTrainer, batch: int) -> None:
        if batch == 1:
            weight = trainer.agent.policy.network.tempo_head.weight
            weight.register_hook(lambda gradient: gradient * float("nan"))
            trainer.agent.raises = True

    hub = Hub()
    trainer = VectorizedPPOTrainer(hub, "default", 1, 1.0)
    exporter = attach("night-7", hub=hub, **OPTIONS)
    trainer._run_batch(batch_idx=0)
    break_gradient(trainer, 1)
    with pytest.raises(ValueError, match="drift check"):
        trainer._run_batch(batch_idx=1)
    pages.append(exporter.render().decode())
    exporter.close()
    pages.append(exporter.render().decode())
    where = {"layer": "tempo_head", "source": "gradients", "kind": "nan"}
    assert value(pages[0], "esper_tamiyo_layer_nonfinite_latched", **where) == 1
    assert value(pages[0], "esper_tamiyo_layer_nonfinite_first_update", **where) == 2
    assert value(pages[0], "esper_tamiyo_nonfinite_latched", source="weights") == 1
    assert value(pages[1], "esper_tamiyo_updates_incomplete_total", reason="raised") == 1
    assert value(pages[1], "esper_tamiyo_updates_total") == 1


@pytest.mark.parametrize("max_grad_norm", [1.0, None])
def test_the_hosts_epochs_are_measured(max_grad_norm: float | None) -> None:
    hub = Hub()
    trainer = VectorizedPPOTrainer(hub, "default", 1, max_grad_norm)
    exporter = attach("night-7", hub=hub, **OPTIONS)
    pages = []

    def look(event: Any) -> None:
        if event.event_type.name == "EPOCH_COMPLETED":
            pages.append((event.data.env_id, exporter.render().decode(), trainer.losses))

    hub.backends.append(type("Last", (), {"emit": staticmethod(look)})())
    trainer._run_batch(batch_idx=0)
    exporter.close()
    assert len(pages) == 4
    for env, page, losses in pages:
        which = {"env_id": str(env)}
        loss = value(page, "esper_tolaria_host_train_loss", **which)
        assert loss == pytest.approx(sum(losses[env]) / 3, rel=1e-6)
        assert value(page, "esper_tolaria_host_learning_rate", **which) == 0.125
        assert value(page, "esper_tolaria_host_grad_norm_pre_clip", **which) > 0
    counts = [
        number
        for (name, labels), number in samples(pages[-1][1]).items()
        if name == "esper_tolaria_step_duration_seconds_count"
    ]
    assert counts and set(counts) == {4.0}


def test_a_value_that_differs_from_the_trainer_s_is_counted() -> None:
    hub = Hub()
    trainer = VectorizedPPOTrainer(hub, "default", 1, 1.0)
    exporter = attach("night-7", hub=hub, **OPTIONS)
    plain = hub.emit

    def lying(kind: str, **reported: Any) -> None:
        if kind == "PPO_UPDATE_COMPLETED":
            reported["pre_clip_grad_norm"] *= 1.5
        plain(kind, **reported)

    hub.emit = lying  # type: ignore[method-assign]
    trainer._run_batch(batch_idx=0)
    page = exporter.render().decode()
    exporter.close()
    name = "esper_exporter_probe_disagreements_total"
    assert value(page, name, field="pre_clip_grad_norm") == 1
    assert value(page, "esper_tamiyo_grad_norm_pre_clip") == hub.events[-2].data.pre_clip_grad_norm
