"""The real esper-lite, unmodified, with attach: run where ESPER_LITE_SRC is a checkout of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.pages import value

SRC = os.environ.get("ESPER_LITE_SRC")
PYTHON = os.environ.get("ESPER_LITE_PYTHON", sys.executable)
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not SRC, reason="not run: ESPER_LITE_SRC names no checkout of esper-lite"),
]
ROOT = Path(__file__).parents[2]
MINUTES = 10

UPDATE = (
    *("grad_norm_pre_clip", "update_index", "kl_divergence_max_nats", "kl_reverse_nats"),
    *("update_trust_region_violations", "value_prediction_error_mean"),
    *("value_prediction_error_std", "td_error_mean", "return_mean", "return_std"),
    *("value_target_correlation", "policy_determinism_ratio", "action_diversity"),
    *("dominant_action_ratio", "op_probability_ratio", "update_log_prob_underflows"),
    *("numerical_stability_ratio", "grad_clipped_ratio", "valid_sample_ratio"),
    *("weight_change_norm", "gradient_utilization_ratio", "layer_grad_norm", "grad_zero_ratio"),
    *("layer_grad_norm_spread", "head_kl_nats", "head_clipped_ratio", "head_active_ratio"),
)
"""27 fields of an update; causal_mask_coverage is head_active_ratio, grad_nan_layers the layers of
layer_grad_norm and of esper_tamiyo_layer_nonfinite_latched: 29."""
HOST = ("host_train_loss", "host_grad_norm_pre_clip", "host_learning_rate")
PHASES = ("forward", "backward", "optimizer", "data_transfer", "epoch")
TORCH = (
    *("compile_graph_breaks", "compile_recompilations", "compile_cache_hits"),
    *("compile_cache_misses", "compile_guard_failures", "infrastructure_window_batches"),
    *("forward_seconds", "backward_seconds", "optimizer_seconds", "data_transfer_seconds"),
)


def run(out: Path, *options: str) -> dict[str, Any]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "exporter"), "ESPER_EXPORTER_LINGER": "0"}
    done = subprocess.run(
        [PYTHON, str(Path(__file__).with_name("train.py")), str(out), *options],
        capture_output=True,
        env=variables,
        timeout=MINUTES * 60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


@pytest.fixture(scope="module", params=[1, 3])
def trained(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path, Any]:
    """Two environments, three updates of ``k`` inner epochs, attached."""
    out = tmp_path_factory.mktemp(f"k{request.param}")
    return request.param, out, run(out, "--attach", "--dump", "--k", str(request.param))


def pages(out: Path, name: str) -> list[str]:
    return [
        each["page"]
        for each in json.loads((out / "pages.json").read_text())
        if each["name"] == name
    ]


def names_in(page: str) -> set[str]:
    return {
        line.partition("{")[0].partition(" ")[0]
        for line in page.splitlines()
        if not line.startswith("#")
    }


def test_all_47_fields_are_on_the_page(trained: tuple[int, Path, Any]) -> None:
    _, out, _ = trained
    shown = names_in(pages(out, "EPOCH_COMPLETED")[-1])
    assert {f"esper_tamiyo_{name}" for name in UPDATE} <= shown
    assert {f"esper_tolaria_{name}" for name in HOST} <= shown
    assert {f"esper_torch_{name}" for name in TORCH} <= shown
    assert "esper_tolaria_step_duration_seconds_count" in shown  # five phases
    assert len(UPDATE) + 2 + len(HOST) + len(PHASES) + len(TORCH) == 49 - 2
    assert not [name for name in shown if "memory_allocated" in name], "a CPU has no allocator"


def test_each_equals_a_computation_in_float64(trained: tuple[int, Path, Any]) -> None:
    import torch

    from live.recompute import everything

    _, out, _ = trained
    shown = pages(out, "PPO_UPDATE_COMPLETED")
    assert len(shown) == 3
    for number, page in enumerate(shown):
        expected = everything(torch.load(out / f"update{number}.pt", weights_only=False))
        assert len(expected) > 80
        for key, wanted in expected.items():
            name, labels = (key, {}) if isinstance(key, str) else (key[0], dict([key[1]]))
            assert value(page, name, **labels) == pytest.approx(wanted, rel=1e-6, abs=1e-9), key


def test_the_weights_are_the_same_without_it(
    trained: tuple[int, Path, Any], tmp_path: Path
) -> None:
    k, _, measured = trained
    plain = run(tmp_path, "--k", str(k))
    assert plain["hash"] == measured["hash"]
    assert plain["error"] is None and measured["error"] is None


def test_the_probe_and_the_trainer_agree(trained: tuple[int, Path, Any]) -> None:
    _, _, result = trained
    page = result["page"]
    assert "esper_exporter_probe_disagreements_total{" not in page
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
    seams = [line for line in page.splitlines() if line.startswith("esper_exporter_probe_seams{")]
    assert len(seams) == 11 and all(line.endswith(" 1.0") for line in seams)
    assert value(page, "esper_tamiyo_updates_total") == 3


def test_the_source_s_bugs_are_mended(trained: tuple[int, Path, Any]) -> None:
    """The plan's two: the norm before clipping is not the one after, and the index counts."""
    _, out, _ = trained
    for page in pages(out, "PPO_UPDATE_COMPLETED"):
        assert value(page, "esper_tamiyo_grad_norm_pre_clip") > 5.0
        assert value(page, "esper_tamiyo_update_index") == 1


@pytest.mark.parametrize(
    ("fault", "lit"),
    [
        ("logits:tempo:nan", ("esper_tamiyo_head_nonfinite_latched", {"head": "tempo"})),
        ("logits:op:inf", ("esper_tamiyo_head_nonfinite_latched", {"head": "op"})),
        (
            "grad:tempo:nan",
            (
                "esper_tamiyo_layer_nonfinite_latched",
                {"layer": "tempo_head.0", "source": "gradients", "kind": "nan"},
            ),
        ),
        (
            "weights:op:nan",
            (
                "esper_tamiyo_layer_nonfinite_latched",
                {"layer": "op_head.0", "source": "weights", "kind": "nan"},
            ),
        ),
        ("loss:op:inf", ("esper_tamiyo_nonfinite_latched", {"source": "loss"})),
    ],
)
def test_a_fault_is_named_also_when_the_trainer_raises(
    fault: str, lit: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    result = run(tmp_path, "--attach", "--rounds", "2", "--fault", fault)
    name, labels = lit
    if "head" in labels:
        kind = fault.rpartition(":")[2]
        assert value(result["page"], name, **labels, kind=kind) == 1
        other = {"nan": "inf", "inf": "nan"}[kind]
        assert value(result["page"], name, **labels, kind=other) == 0
    else:
        assert value(result["page"], name, **labels) == 1
    if "layer" in labels:
        first = "esper_tamiyo_layer_nonfinite_first_update"
        assert value(result["page"], first, **labels) == 2
