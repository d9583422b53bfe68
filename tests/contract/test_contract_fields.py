"""Every field of the event contract exists in the payload class that is read for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from esper_exporter.contract import analytics, events, infra, kasmina, simic, tamiyo, tolaria
from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.tamiyo import TamiyoPolicyUpdatePayload
from esper_exporter.contract.vocabulary import HEADS

CONTRACT: dict[str, list[str]] = json.loads(
    (Path(__file__).parent / "contract_fields.json").read_text(encoding="utf-8")
)
MODULES = (events, tamiyo, tolaria, kasmina, simic, analytics, infra)

PLANNED = (
    *["ppo_update_idx", "approx_kl_max", "kl_reverse", "trust_region_violations"],
    *["value_prediction_error_mean", "value_prediction_error_std", "value_target_correlation"],
    *["causal_mask_coverage", "policy_determinism", "action_diversity", "dominant_action_ratio"],
    *["op_distribution", "log_prob_underflow_count", "numerical_stability_score"],
    *[
        "grad_clip_fraction",
        "valid_sample_ratio",
        "policy_update_magnitude",
        "gradient_utilization",
    ],
    *["grad_norm_per_layer", "grad_zero_fraction", "grad_norm_ratio", "grad_nan_layers"],
    *["loss_scale_updates", "amp_overflow_count", "grad_scaler_state"],
    *["advantage_min", "advantage_max", "advantage_raw_mean", "advantage_raw_std"],
    *(f"head_{head}_{what}" for head in HEADS for what in ("kl", "active_ratio")),
)


def find(name: str) -> type[Struct]:
    found = [vars(module)[name] for module in MODULES if name in vars(module)]
    assert found, f"no class {name}"
    kind: type[Struct] = found[0]
    return kind


@pytest.mark.parametrize("name", CONTRACT)
def test_a_class_has_every_field_of_the_contract(name: str) -> None:
    have = set(find(name).__struct_fields__)
    assert set(CONTRACT[name]) - have == set()


@pytest.mark.parametrize("name", PLANNED)
def test_a_policy_update_has_the_fields_of_the_plan(name: str) -> None:
    assert name in TamiyoPolicyUpdatePayload.__struct_fields__


@pytest.mark.parametrize("name", sorted(TYPES))
def test_a_field_that_may_be_absent_defaults_to_not_measured(name: str) -> None:
    assert {field.default for field in fields(TYPES[name].payload)} <= {NODEFAULT, None}
