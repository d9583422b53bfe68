"""CPU time of publishing collected values: one policy update, and all slots.

Both sides get the same lists, one a row; theirs has its children at hand.
"""

from __future__ import annotations

import importlib
import tempfile
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Gauge

from benchmarks.content import ENVS, SLOTS
from benchmarks.measure import Result, compare, cpu_seconds
from esper_exporter.metrics.metric import Metric
from esper_exporter.metrics.table import Block, ValueTable

UPDATE_VALUES = 220
SLOT_VALUES = 20


def _side_by_side(rows: int, width: int) -> tuple[Any, Any]:
    names = [f"field_{n}" for n in range(width)]
    random = np.random.default_rng(3)
    collected = [random.normal(size=width).tolist() for _ in range(rows)]
    metrics = tuple(
        Metric(name=f"esper_bench_{name}", kind="gauge", help="A gauge.", block="b")
        for name in names
    )
    table = ValueTable([Block.of("b", metrics)])
    made = [table.add_row("b", (("row", str(n)),)) for n in range(rows)]
    registry = CollectorRegistry()
    gauges = [
        Gauge(f"esper_bench_{name}", "A gauge.", ["row"], registry=registry) for name in names
    ]
    children = [[gauge.labels(str(n)) for gauge in gauges] for n in range(rows)]

    def ours() -> None:
        table.write_rows(made, collected)

    def theirs() -> None:
        for of_row, values in zip(children, collected, strict=True):
            for child, value in zip(of_row, values, strict=True):
                child.set(value)

    return ours, theirs


def run(rounds: int) -> list[Result]:
    results = []
    for name, rows, width, floor in (
        ("publish a policy update", 1, UPDATE_VALUES, 15),
        ("publish 64 envs x 9 slots", ENVS * SLOTS, SLOT_VALUES, 20),
    ):
        ours, theirs = _side_by_side(rows, width)
        times = max(1, 2000 // rows)

        def repeated(work: Any = theirs, count: int = times) -> None:
            for _ in range(count):
                work()

        def ours_repeated(work: Any = ours, count: int = times) -> None:
            for _ in range(count):
                work()

        results.append(
            compare(
                name,
                ours_repeated,
                repeated,
                floor,
                rounds=rounds,
                note=f"CPU time of {times} times {rows * width} values; theirs: cached children",
            )
        )
    return results + _others()


def _others() -> list[Result]:
    """What it takes others to log one update of 220 values, where they are installed."""
    results = []
    values = {f"tamiyo/field_{n}": float(n) for n in range(UPDATE_VALUES)}
    try:
        writer_module = importlib.import_module("tensorboard.summary")
    except ImportError:
        results.append(Result("update to TensorBoard", 0.0, None, None, "s", note="not installed"))
    else:
        with tempfile.TemporaryDirectory() as folder:
            writer = writer_module.Writer(folder)

            def log() -> None:
                for name, value in values.items():
                    writer.add_scalar(name, value, step=0)
                writer.flush()

            results.append(Result("update to TensorBoard", cpu_seconds(log, 20), None, None, "s"))
            writer.close()
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        results.append(Result("update to W&B offline", 0.0, None, None, "s", note="not installed"))
    else:
        with tempfile.TemporaryDirectory() as folder:
            run_of = wandb.init(mode="offline", dir=folder, project="bench")
            seconds = cpu_seconds(lambda: run_of.log(values), 20)
            run_of.finish()
            results.append(Result("update to W&B offline", seconds, None, None, "s"))
    return results
