"""The catalogue: every metric in page order, and how it is printed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from esper_exporter.metrics.families import (
    agent_metrics,
    batch_metrics,
    decision_metrics,
    env_reward_metrics,
    episode_metrics,
    exporter_metrics,
    gpu_metrics,
    head_metrics,
    host_metrics,
    infrastructure_metrics,
    machine_metrics,
    outcome_metrics,
    policy_count_metrics,
    policy_metrics,
    probe_metrics,
    rank_metrics,
    recurrent_metrics,
    run_metrics,
    seed_metrics,
)
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.unexported_fields import (
    classes_with_metrics,
    reasons_of,
    unexported_fields,
)
from esper_exporter.state import counted


class CatalogueError(ValueError):
    """The catalogue contradicts itself; the message names the metrics."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All metrics in page order.

    Raises CatalogueError for two metrics whose families or samples would share a name: a strict
    OpenMetrics parser refuses the whole page then.
    """

    metrics: tuple[Metric, ...]

    def __post_init__(self) -> None:
        owners: dict[str, str] = {}
        for metric in self.metrics:
            for name in metric.reserved_names:
                owner = owners.setdefault(name, metric.name)
                if owner != metric.name:
                    raise CatalogueError(
                        f"the metrics {owner} and {metric.name} both claim the name {name}"
                    )
        names = [metric.name for metric in self.metrics]
        if len(names) != len(set(names)):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise CatalogueError(f"declared twice: {', '.join(twice)}")

    def block(self, name: str) -> tuple[Metric, ...]:
        """The metrics that describe one kind of thing."""
        return tuple(metric for metric in self.metrics if metric.block == name)


@cache
def catalogue() -> Catalogue:
    """The one catalogue of this version."""
    metrics = (
        *run_metrics.COUNTERS,
        *run_metrics.METRICS,
        *batch_metrics.METRICS,
        *rank_metrics.METRICS,
        *episode_metrics.METRICS,
        *head_metrics.METRICS,
        *policy_metrics.METRICS,
        *recurrent_metrics.METRICS,
        *policy_count_metrics.OPS_METRICS,
        *policy_count_metrics.RECOMMENDED,
        *policy_count_metrics.COUNTERS,
        *probe_metrics.POLICY_METRICS,
        *probe_metrics.HEAD_METRICS,
        *probe_metrics.LAYER_METRICS,
        *probe_metrics.COUNTERS,
        *probe_metrics.SEAM_METRICS,
        *head_metrics.CHOICES,
        *infrastructure_metrics.OBSERVATION_METRICS,
        *host_metrics.ENV_METRICS,
        *env_reward_metrics.ENV_METRICS,
        *decision_metrics.ENV_METRICS,
        *outcome_metrics.SHAPLEY_METRICS,
        *outcome_metrics.BEST_RUN_METRICS,
        *outcome_metrics.COUNTERS,
        *seed_metrics.STAGE_METRICS,
        *seed_metrics.SLOT_METRICS,
        *seed_metrics.INFOS,
        *seed_metrics.BLUEPRINT_METRICS,
        *seed_metrics.COUNTERS,
        *infrastructure_metrics.DEVICE_METRICS,
        *infrastructure_metrics.INFRASTRUCTURE_METRICS,
        *gpu_metrics.METRICS,
        *machine_metrics.HOST_METRICS,
        *machine_metrics.PROCESS_METRICS,
        *exporter_metrics.METRICS,
        *agent_metrics.METRICS,
    )
    shown = {metric.counted for metric in metrics}
    if forgotten := [declared.name for declared in counted.ALL if declared not in shown]:
        raise CatalogueError(f"counted, but in no family: {', '.join(forgotten)}")
    return Catalogue(metrics)


def as_json(found: Catalogue) -> str:
    """The catalogue for programs; a source's sample is scale × the value found there."""
    return json.dumps(
        {
            "metrics": [
                {
                    "name": metric.name,
                    "type": metric.kind,
                    "unit": metric.unit,
                    "help": metric.help,
                    "labels": list(metric.labels),
                    "sources": list(metric.sources),
                    "scale": metric.scale,
                }
                for metric in found.metrics
            ],
            "unexported": [
                {"path": path, "reason": reason} for path, reason in unexported_fields()
            ],
        },
        indent=1,
        ensure_ascii=False,
    )


def as_table(found: Catalogue) -> str:
    """The catalogue for a terminal: one line a metric."""
    width = max(len(metric.name) for metric in found.metrics)
    lines = [f"{metric.name:<{width}}  {metric.kind:<9}  {metric.help}" for metric in found.metrics]
    return "\n".join(lines)


_DOMAINS = (
    ("esper_run_", "Run"),
    ("esper_rank_", "Ranks of a distributed training"),
    ("esper_tamiyo_", "Tamiyo: the policy"),
    ("esper_tolaria_", "Tolaria: host training"),
    ("esper_kasmina_", "Kasmina: seeds"),
    ("esper_simic_", "Simic: reward and fitness"),
    ("esper_torch_", "torch"),
    ("esper_gpu_", "GPU"),
    ("esper_host_", "Host"),
    ("process_", "The process"),
    ("python_gc_", "Python's garbage collector"),
    ("esper_exporter_", "The exporter itself"),
    ("esper_agent_", "The node agent"),
)

_INTRODUCTION = """# Metrics

Generated from the catalogue by `make docs`; do not edit.

Every sample that belongs to a run carries `run_id`, `group_id` and `rank`. What was not measured is
absent, never 0; what is NaN is NaN. Units are base units. For a plain source, the sample is scale ×
the value found there; `event:TYPE.field` is a field of the last such event, other paths lead into
the Sanctum snapshot, with labels in braces.

A counter of what happens (events, updates, decisions) exists at 0 from the start of the run, since
`increase()` does not see a counter's birth. A counter or histogram of what an optional field
reports exists from the first report, at 0 if that was 0: a trainer that does not measure the field
has no such counter, and `increase()` misses what the first report held.
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def as_markdown(found: Catalogue) -> str:
    """The catalogue as docs/METRICS.md."""
    parts = [_INTRODUCTION]
    for prefix, title in _DOMAINS:
        chosen = [metric for metric in found.metrics if metric.name.startswith(prefix)]
        if not chosen:
            continue
        parts.append(f"\n## {title}\n")
        parts.append("| metric | type | labels | meaning | source |")
        parts.append("|---|---|---|---|---|")
        for metric in chosen:
            labels = ", ".join(
                f"`{label}`"
                for label in metric.labels
                if label not in ("run_id", "group_id", "rank")
            )
            scale = f" × {metric.scale:.10g}" if metric.scale != 1.0 else ""
            sources = "<br>".join(
                source if source.startswith("derived:") else f"`{source}`{scale}"
                for source in metric.sources
            )
            measured = metric.counted is not None and metric.counted.measured
            meaning = metric.help + (" Exists from the first report." if measured else "")
            parts.append(
                f"| `{metric.name}` | {metric.kind} | {labels} | {_cell(meaning)} |"
                f" {_cell(sources)} |"
            )
    parts.append("\n## Not exported\n")
    parts.append("| of | fields | why |")
    parts.append("|---|---|---|")
    for kind in classes_with_metrics():
        for reason, names in reasons_of(kind).items():
            fields = ", ".join(f"`{name}`" for name in names)
            parts.append(f"| `{kind.__name__}` | {fields} | {_cell(reason)} |")
    return "\n".join(parts) + "\n"
