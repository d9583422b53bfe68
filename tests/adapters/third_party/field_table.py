"""The table of fields by trainer: right, absent with its reason, wrong. `make test-adapters`.

usage: python field_table.py DIR      print what the tests left in DIR as a Markdown table
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from adapters.third_party.reference import Key, agrees
from support.pages import samples

ABSENT = "absent: "

GROUPS: Mapping[str, tuple[str, ...]] = {
    "losses": ("policy_loss", "value_loss"),
    "ratios": (
        *("kl_divergence_nats", "kl_divergence_max_nats", "kl_reverse_nats", "clipped_ratio"),
        *("update_trust_region_violations", "importance_ratio_mean", "importance_ratio_min"),
        *("importance_ratio_max", "head_kl_nats", "head_clipped_ratio"),
    ),
    "policy": (
        *("head_entropy_nats", "policy_entropy_nats", "log_prob_min_nats", "log_prob_max_nats"),
        "head_entropy_ratio",
    ),
    "critic": (
        *("value_mean", "value_std", "value_min", "value_max", "return_mean", "return_std"),
        *("value_prediction_error_mean", "value_prediction_error_std"),
        *("explained_variance", "value_target_correlation"),
    ),
    "sample": (
        *("advantage_mean", "advantage_std", "advantage_raw_mean", "advantage_raw_std"),
        *("action_diversity", "dominant_action_ratio"),
    ),
    "gradients": (
        *("grad_norm_pre_clip", "grad_norm", "grad_norm_step", "grad_clipped_ratio"),
        *("gradient_utilization_ratio", "gradient_cv", "max_grad_norm", "layer_grad_norm"),
        *("layer_grad_norm_spread", "grad_zero_ratio", "nan_gradient_tensors"),
        *("inf_gradient_tensors", "weight_change_norm"),
    ),
}


def judge(trainer: str, page: str, wanted: Mapping[Key, float], reasons: Mapping[str, str]) -> None:
    """Compare a page with ``wanted``; a field that neither is wanted nor shows needs a reason,
    by field or by group. Fails on a field that is wrong: another value, a value that nothing
    decides, or none where there is one."""
    shown = samples(page)
    found: dict[str, str] = {}
    for group, names in GROUPS.items():
        for name in names:
            metric = f"esper_tamiyo_{name}"
            keys = [key for key in wanted if key == metric or key[0] == metric]
            there = {dict(labels).get("layer") or dict(labels).get("head"): v
                     for (each, labels), v in shown.items() if each == metric}  # fmt: skip
            if not keys:
                reason = reasons.get(name) or reasons.get(group)
                found[name] = f"wrong: shows {there}" if there else f"absent: {reason}"
                assert there or reason, f"{trainer}: {name} is absent for no reason"
                continue
            bad = [
                f"{key}: {there.get(label)} for {wanted[key]}"
                for key in keys
                for label in [None if isinstance(key, str) else key[1][1]]
                if not agrees(there.get(label), wanted[key])
            ]
            found[name] = f"wrong: {'; '.join(bad)}" if bad else "right"
    wrong = {name: said for name, said in found.items() if said.startswith("wrong")}
    if folder := os.environ.get("ADAPTER_FIELDS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{trainer}.json").write_text(json.dumps(found, indent=1))
    assert not wrong, f"{trainer}: {wrong}"


def table(folder: Path) -> str:
    """What the tests left in a folder, a row for each trainer."""
    lines = ["| trainer | right | wrong | absent, and why |", "|---|---|---|---|"]
    for path in sorted(folder.glob("*.json")):
        found: dict[str, str] = json.loads(path.read_text())
        reasons: dict[str, int] = {}
        for said in found.values():
            if said.startswith(ABSENT):
                reason = said.removeprefix(ABSENT)
                reasons[reason] = reasons.get(reason, 0) + 1
        right = sum(said == "right" for said in found.values())
        wrong = sum(said.startswith("wrong") for said in found.values())
        why = "; ".join(f"{count}: {reason}" for reason, count in reasons.items())
        lines.append(f"| {path.stem} | {right} | {wrong} | {why or '–'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
