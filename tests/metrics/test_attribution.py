"""Counterfactual accuracies: what was not evaluated is absent, not 0 and not synergy."""

from __future__ import annotations

import itertools
import json

import pytest

from esper_exporter import Exporter
from support.pages import value
from support.recordings import telemetry_lines

ACCURACY = {(False, False): 50.0, (True, False): 55.0, (False, True): 52.0, (True, True): 60.0}


def page_with(*masks: tuple[bool, bool]) -> str:
    exporter = Exporter(port=0)
    started = json.loads(telemetry_lines("run1")[0])
    exporter.emit(started)
    exporter.emit(
        {
            **started,
            "event_id": "matrix",
            "event_type": "COUNTERFACTUAL_MATRIX_COMPUTED",
            "data": {
                "env_id": 0,
                "slot_ids": ["r0c0", "r0c1"],
                "configs": [{"seed_mask": mask, "accuracy": ACCURACY[mask]} for mask in masks],
                "strategy": "ablation_only",
            },
        }
    )
    page = exporter.render().decode()
    assert value(page, "esper_simic_counterfactual_matrices_total") == 1.0
    return page


@pytest.mark.parametrize("count", range(len(ACCURACY) + 1))
def test_what_was_evaluated_is_shown_and_nothing_else(count: int) -> None:
    for masks in itertools.combinations(ACCURACY, count):
        page = page_with(*masks)
        for name, mask in (("baseline", (False, False)), ("combined", (True, True))):
            shown = value(page, f"esper_simic_counterfactual_{name}_accuracy_ratio")
            assert shown == (ACCURACY[mask] / 100 if mask in masks else None)
        synergy = value(page, "esper_simic_counterfactual_synergy_ratio")
        whole = count == len(ACCURACY)
        assert synergy == (pytest.approx(0.03) if whole else None)
