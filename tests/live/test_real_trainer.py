"""The real esper-lite, unmodified, with attach: run where ESPER_LITE_SRC is a checkout of it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from esper_exporter.contract.vocabulary import HEADS
from support.pages import samples, value

SRC = os.environ.get("ESPER_LITE_SRC")
PYTHON = os.environ.get("ESPER_LITE_PYTHON", sys.executable)
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not SRC, reason="not run: ESPER_LITE_SRC names no checkout of esper-lite"),
]
ROOT = Path(__file__).parents[2]
MINUTES, EPOCHS = 10, 10

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
    places = os.pathsep.join((str(ROOT / "exporter"), str(ROOT / "tests")))
    variables = {**os.environ, "PYTHONPATH": places, "ESPER_EXPORTER_LINGER": "0"}
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
    """The plan's two: the norm before clipping is not the one after, and the index is that of the
    update, where the trainer's event has the last epoch."""
    import torch

    _, out, result = trained
    assert result["inner_epochs"] == [EPOCHS] * 3
    norms = []
    for number, page in enumerate(pages(out, "PPO_UPDATE_COMPLETED")):
        dumped = torch.load(out / f"update{number}.pt", weights_only=False)
        limit = dumped["limit"][0]
        norm = value(page, "esper_tamiyo_grad_norm_pre_clip")
        assert norm is not None and norm > limit == value(page, "esper_tamiyo_max_grad_norm")
        norms.append(norm)
        assert value(page, "esper_tamiyo_update_index") == 1
    assert len(set(norms)) == 3, "a norm after clipping would be the limit each time"


def test_choices_are_counted_as_decided(trained: tuple[int, Path, Any]) -> None:
    _, _, result = trained
    decided: Counter[tuple[str, str]] = Counter(
        (head, choice)
        for decision in result["decisions"]
        for head, choice in decision.items()
        if choice is not None
    )
    assert {head for head, _ in decided} == set(HEADS)
    shown = {
        (labels["head"], labels["choice"]): count
        for (name, reported), count in samples(result["page"]).items()
        if name == "esper_tamiyo_choices_total" and count and (labels := dict(reported))
    }
    assert shown == decided


def test_the_hosts_loss_scales_are_measured(tmp_path: Path) -> None:
    """A CPU has none; with scalers put in, the three fields of AMP. An overflow is no fault."""
    scale = ("--scale", "3.4e38", "--rounds", "2")
    measured = run(tmp_path / "measured", "--attach", *scale)
    plain = run(tmp_path / "plain", *scale)
    assert plain["hash"] == measured["hash"] and measured["error"] is None
    assert measured["scales"] == plain["scales"] and len(measured["scales"]) == 2
    moves = [
        after - before
        for batch in measured["scales"]
        for scales in batch
        for before, after in pairwise(scales)
        if after != before
    ]
    falls = sum(move < 0 for move in moves)
    assert 2 <= falls < len(moves)
    page = measured["page"]
    assert value(page, "esper_tamiyo_loss_scale_updates_total") == len(moves)
    assert value(page, "esper_tamiyo_amp_overflows_total") == falls
    assert value(page, "esper_tamiyo_loss_scale") == min(s[-1] for s in measured["scales"][-1])
    last = [[b - a for a, b in pairwise(s) if a != b][-1] for s in measured["scales"][-1]]
    state = "decaying" if min(last) < 0 else "growing"
    assert value(page, "esper_torch_grad_scaler_state", state=state) == 1
    for env in ("0", "1"):
        norm = value(page, "esper_tolaria_host_grad_norm_pre_clip", env_id=env)
        assert norm is None or math.isfinite(norm)
    assert not [n for (n, _), lit in samples(page).items() if n.endswith("_latched") and lit]


LOGITS, LAYERS = "esper_tamiyo_head_nonfinite_latched", "esper_tamiyo_layer_nonfinite_latched"


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("kind", ["nan", "inf"])
@pytest.mark.parametrize(
    ("fault", "name", "labels"),
    [
        ("logits:tempo", LOGITS, {"head": "tempo"}),
        ("grad:tempo", LAYERS, {"layer": "tempo_head.0", "source": "gradients"}),
        ("weights:op", LAYERS, {"layer": "op_head.0", "source": "weights"}),
        ("loss:value", LAYERS, {"layer": "value_loss", "source": "loss"}),
    ],
)
def test_a_fault_is_named_also_when_the_trainer_raises(
    fault: str, name: str, labels: dict[str, str], kind: str, k: int, tmp_path: Path
) -> None:
    """It is in every step of the second update. A gradient that is not finite makes the trainer's
    check raise before it reports the update."""
    result = run(tmp_path, "--attach", "--rounds", "2", "--k", str(k), "--fault", f"{fault}:{kind}")
    page = result["page"]
    assert value(page, name, **labels, kind=kind) == 1
    if name == LOGITS:
        other = {"nan": "inf", "inf": "nan"}[kind]
        assert value(page, name, **labels, kind=other) == 0
        first = value(page, "esper_tamiyo_head_nonfinite_first_update", **labels, kind=kind)
        assert first == 1, "the first update of its batch"
        assert value(page, "esper_tamiyo_head_nonfinite_first_batch", **labels, kind=kind) == 2
        lit = {
            dict(reported)["head"]
            for (n, reported), v in samples(page).items()
            if n == LOGITS and v
        }
        assert lit == {"tempo"}
    else:
        first = value(page, "esper_tamiyo_layer_nonfinite_first_update", **labels, kind=kind)
        assert first == 2
    if fault.startswith("grad"):
        assert result["error"], "the trainer raised"
        incomplete = "esper_tamiyo_updates_incomplete_total"
        assert value(result["end"], incomplete, reason="no_event") == 1
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
