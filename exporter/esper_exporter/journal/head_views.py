"""Rows of a view for each head: its states, its choices."""

from __future__ import annotations

from esper_exporter import health
from esper_exporter.contract.vocabulary import CHOSEN_IN, HEADS, OPS, SPELLINGS
from esper_exporter.journal.view_parts import common, relation

LAST_ACTION = "kind = 'last_action'"


def telemetry_head(head: str) -> str:
    return SPELLINGS[head]


def head_state(head: str) -> str:
    """The panel's table of head states, as `health.classify_head` reads it."""
    entropy, norm = f"head_{head}_entropy", f"head_{head}_grad_norm"
    choice = (
        f"CASE WHEN head_{head}_learnable_fraction > 0"
        f" THEN {entropy} / head_{head}_learnable_fraction ELSE {entropy} END"
    )
    low = f"({choice}) < {health.STATE_ENTROPY_COLLAPSED}"
    good = health.STATE_ENTROPY_HEALTHY
    return f"""CASE
        WHEN {entropy} IS NULL OR {norm} IS NULL OR isnan({entropy}) OR isnan({norm})
            THEN 'unknown'
        WHEN {norm} < {health.HEAD_GRAD_NORM_DEAD} AND {low} THEN 'dead'
        WHEN {norm} > {health.HEAD_GRAD_NORM_EXPLODING} THEN 'exploding'
        WHEN {low} THEN 'collapsed'
        WHEN {norm} NOT BETWEEN {health.HEAD_GRAD_NORM_LOW} AND {health.HEAD_GRAD_NORM_HIGH}
            THEN 'indeterminate'
        WHEN ({choice}) > {health.STATE_ENTROPY_CONFUSED} THEN 'confused'
        WHEN ({choice}) BETWEEN {good[0]} AND {good[1]} THEN 'healthy'
        ELSE 'indeterminate' END"""


def head_state_rows(source: str) -> str:
    selects = [
        f"SELECT {common()}, batch, '{head}' AS head, head_{head}_entropy AS entropy,"
        f" head_{head}_learnable_fraction AS learnable_fraction,"
        f" CASE WHEN head_{head}_learnable_fraction > 0"
        f" THEN head_{head}_entropy / head_{head}_learnable_fraction END AS entropy_where_choice,"
        f" head_{head}_grad_norm AS grad_norm, head_{head}_gradient_state AS gradient_state,"
        f" head_{head}_ratio_max AS ratio_max, head_{head}_clip_fraction AS clip_fraction,"
        f" coalesce(head_nan_detected['{head}'], false) AS nan_detected,"
        f" coalesce(head_inf_detected['{head}'], false) AS inf_detected,"
        f" {head_state(head)} AS state FROM {source}"
        for head in HEADS
    ]
    return " UNION ALL ".join(selects)


_CHOICE_OF = {head: f"{field}::VARCHAR" for head, field in CHOSEN_IN.items()} | {
    "op": f"regexp_extract(action_name, '^({'|'.join(OPS)})')"
}


def choice_rows() -> str:
    selects = [
        f"SELECT {common()}, env_id, episode_idx, inner_epoch, '{head}' AS head,"
        f" {choice} AS choice, head_telemetry.{telemetry_head(head)}_confidence AS confidence,"
        f" head_telemetry.{telemetry_head(head)}_entropy AS entropy, {head}_masked AS masked"
        f" FROM {relation('ANALYTICS_SNAPSHOT')} WHERE {LAST_ACTION}"
        for head, choice in _CHOICE_OF.items()
    ]
    return " UNION ALL ".join(selects)
