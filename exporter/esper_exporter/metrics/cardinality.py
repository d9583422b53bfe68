"""How many series a run has at most, by its size: the arithmetic of docs/SCALE.md."""

from __future__ import annotations

from esper_exporter.contract.vocabulary import BLUEPRINTS, OPS, STAGES
from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.metrics.families.head_metrics import (
    HEAD_LATCH_ROWS,
    HEAD_ROWS,
    SOURCE_LATCH_ROWS,
)
from esper_exporter.metrics.metric import columns_of
from esper_exporter.state.apply_host import BEST_RUNS


def series_of_run(
    envs: int, slots: int, *, layers: int = 0, devices: int = 1, blueprints: int = len(BLUEPRINTS)
) -> int:
    """The most series that one run can have on a page, without the exporter's own.

    ``slots`` are those of one env, ``blueprints`` those that each env has tried, ``layers`` the
    layers of the policy that are reported. What is not measured has no series, so runs have fewer.
    """
    rows = {
        "head": len(HEAD_ROWS),
        "head_latch": len(HEAD_LATCH_ROWS),
        "source_latch": len(SOURCE_LATCH_ROWS),
        "op": len(OPS),
        "stage": len(STAGES),
        "layer": layers,
        "layer_norm": layers,
        "env": envs,
        "slot": envs * slots,
        "shapley": envs * slots,
        "esper_kasmina_seed_info": envs * slots,
        "env_blueprint": envs * blueprints,
        "best_run": BEST_RUNS,
        "device": devices,
        "gpu_use": devices,
    }
    total = 0
    for metric in catalogue().metrics:
        if metric.labels[:1] == ("run_id",):
            labelled = len(metric.counted.known) if metric.counted is not None else 0
            known = rows.get(metric.block, labelled or 1)
            total += known * len(columns_of(metric))
    return total
