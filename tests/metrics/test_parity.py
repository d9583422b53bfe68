"""Every plain sample equals scale × what the real aggregator held at the same event."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from esper_exporter import Exporter
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.metrics.catalogue import catalogue
from support.recordings import RECORDED_HEADS

RECORDINGS = Path(__file__).parents[1] / "recordings"

MENDED: dict[str, str] = {
    "tamiyo.head_{kind}_latch[{head}]": "the real latches stay dark when the whole update is"
    " skipped; ours are lit by the anomaly that reports it",
}
"""Sources that differ on purpose, each with the defect of the real aggregator that ours mends."""

RUNS = ("run1", "run2b")
_BRACES = re.compile(r"\{(\w+)\}")


def read_lines(name: str) -> Iterator[bytes]:
    with gzip.open(RECORDINGS / name) as lines:
        yield from lines


def real_number(value: Any) -> Any:
    return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value, value)


def resolve(snapshot: Any, source: str, labels: dict[str, str]) -> Any:
    """The value at a catalogue path, in a recorded snapshot."""
    path = _BRACES.sub(lambda found: labels[found[1]], source)
    here = snapshot
    for part in re.findall(r"[^.\[\]]+(?=[.\[]|$)|\[[^\]]*\]", path):
        if part.startswith("["):
            key = part[1:-1]
            here = here[int(key)] if isinstance(here, list) else here[key]
        else:
            here = here[part]
    return real_number(here)


def same(ours: float, real: float) -> bool:
    if math.isnan(real) or math.isnan(ours):
        return math.isnan(real) and math.isnan(ours)
    return math.isclose(ours, real, rel_tol=1e-9, abs_tol=0.0)


@pytest.mark.parametrize("run", RUNS)
def test_every_plain_sample_equals_what_the_real_aggregator_held(run: str) -> None:
    plain = {
        metric.name: metric
        for metric in catalogue().metrics
        if not metric.sources[0].startswith(("derived:", "event:"))
    }
    exporter = Exporter(port=0)
    events = read_lines(f"{run}.telemetry.jsonl.gz")
    fed = compared = 0
    differences: list[str] = []
    for line in read_lines(f"{run}.snapshots.jsonl.gz"):
        recorded = json.loads(line)
        while fed < recorded["after_seq"]:
            exporter.emit_line(next(events))
            fed += 1
        for family in text_string_to_metric_families(exporter.render().decode()):
            for sample in family.samples:
                metric = plain.get(sample.name)
                if metric is None or sample.labels["group_id"] != recorded["group_id"]:
                    continue
                source = metric.sources[0]
                head = sample.labels.get("head", "q")
                if head not in (*RECORDED_HEADS, "q"):
                    continue  # the recorded snapshots have no room for it
                real = resolve(recorded["snapshot"], source, sample.labels)
                compared += 1
                equal = real is not None and same(sample.value, metric.scale * real)
                if not equal and source not in MENDED:
                    differences.append(
                        f"after {fed}: {sample.name}{sample.labels} is {sample.value},"
                        f" {source} is {real}"
                    )
    assert not differences, "\n".join([f"{len(differences)} of {compared}", *differences[:40]])
    assert compared > 1000


def test_a_skipped_update_lights_the_latches_of_the_heads_it_names() -> None:
    exporter = Exporter(port=0)
    for line in read_lines("run2b.telemetry.jsonl.gz"):
        exporter.emit_line(line)
    lit = {}
    skipped = {}
    for family in text_string_to_metric_families(exporter.render().decode()):
        for sample in family.samples:
            if sample.name == "esper_tamiyo_head_nonfinite_latched":
                lit[sample.labels["head"], sample.labels["kind"]] = sample.value
            if sample.name == "esper_tamiyo_updates_skipped_total":
                skipped[sample.labels["reason"]] = sample.value
    assert len(lit) == 2 * len(HEADS)
    assert {key for key, value in lit.items() if value} == {("tempo", "nan"), ("op", "nan")}
    assert skipped == {"nonfinite": 3.0, "rollback": 0.0, "requested": 0.0, "unexplained": 0.0}
