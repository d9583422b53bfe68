"""A Prometheus with what the dashboards ask for: recorded runs as history, and one that lives."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from esper_exporter import Exporter
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.probes.gpu.fake import FakeDriver, Fault
from support.command import run
from support.programs import program, wait_until
from support.prometheus import Prometheus, prometheus
from support.recordings import telemetry, telemetry_lines
from support.remote_write import fake_receiver

# What only a trainer of the plan's age, or our own probe, reports of an update.
UPDATE: dict[str, Any] = {
    **{f"head_{head}_kl": 0.001 for head in HEADS},
    **{f"head_{head}_active_ratio": 0.5 for head in HEADS},
    "grad_norm_per_layer": {"core": 0.5, "op": 0.25},
    "approx_kl_max": 0.02,
    "value_target_correlation": 0.7,
    "entropy_loss": -0.1,
    "grad_clip_fraction": 0.5,
    "valid_sample_ratio": 0.9,
    "loss_scale": 1024.0,
    "grad_scaler_state": "stable",
    "amp_overflow_count": 0,
    "trust_region_violations": 3,
    "log_prob_underflow_count": 0,
}
INFRASTRUCTURE: dict[str, Any] = {
    "cuda_memory_allocated_gb": 1.0,
    "cuda_memory_reserved_gb": 2.0,
    "cuda_memory_active_gb": 1.25,
    "cuda_memory_inactive_gb": 0.25,
    "cuda_memory_peak_gb": 1.5,
    "cuda_memory_fragmentation": 0.25,
    "gpu_utilization_pct": 60.0,
    "compile_graph_breaks": 1,
    "compile_recompilations": 2,
    "compile_cache_hits": 3,
    "compile_cache_misses": 4,
    "dynamo_guard_failures": 5,
    "cuda_oom_events": 0,
    "phase_times_ms": {"forward": [3.0], "backward": [6.0], "optimizer": [1.0]},
}
ALLOCATOR: dict[str, Any] = {
    "batch_idx": 1,
    "device": "cuda:0",
    "allocated_bytes": 2**30,
    "reserved_bytes": 2**31,
    "fragmentation_bytes": 2**28,
    "num_alloc_retries": 1,
    "num_ooms": 0,
}
HOST_EPOCH: dict[str, Any] = {
    "forward_time_ms": 3.0,
    "backward_time_ms": 6.0,
    "optimizer_step_time_ms": 1.0,
}


def twice_by_two(lines: list[str]) -> Iterator[str]:
    """A run's samples as of two ranks, stored by two servers of which each has them all."""
    for line in lines:
        if line.startswith("#"):
            yield line
            continue
        for rank in "01":
            ranked = line.replace('rank="0"', f'rank="{rank}"')
            for replica in "ab" if ranked != line or rank == "0" else "":
                name, labels, rest = (
                    re.split(r"[{}]", ranked, maxsplit=2)
                    if "{" in line
                    else (*ranked.split(" ", 1)[:1], "", " " + ranked.split(" ", 1)[1])
                )
                separator = "," if labels else ""
                yield f'{name}{{{labels}{separator}replica="{replica}"}}{rest}'


def blocks(folder: Path) -> None:
    """The two recordings, at their own time, as a server's blocks."""
    for name in ("run1", "run2b"):
        out = folder / f"{name}.om"
        done = run("backfill", telemetry(name), "--out", out, "--step", "5", "--run-id", name)
        assert done.returncode == 0, done.stderr
        out.write_text("".join(twice_by_two(out.read_text().splitlines(keepends=True))))
        subprocess.run(
            [
                *(program("promtool"), "tsdb", "create-blocks-from", "openmetrics", out),
                *(folder / "server" / "data",),
            ],
            check=True,
            capture_output=True,
        )


@contextmanager
def filled(folder: Path) -> Iterator[Prometheus]:
    """A server with the blocks, that has scraped a run before and after the rest of its events.

    The run is pushed to a receiver, too, which keeps what it takes to itself.
    """
    blocks(folder)
    with fake_receiver() as receiver, scraped(folder, receiver.url) as server:
        yield server


@contextmanager
def scraped(folder: Path, push: str) -> Iterator[Prometheus]:
    """A server on the blocks in a folder and a run, which also pushes to a receiver."""
    faults = [Fault("hot", gpu=1), Fault("xid", code=94)]
    exporter = Exporter(
        run_id="live",
        port=0,
        linger=0,
        gpu_vitals="auto",
        host_vitals="on",
        vitals_interval=0.5,
        gpu_slow_interval=0.5,
        gpu_driver=FakeDriver(2, faults=faults),
        push=push,
        push_interval=1,
        push_linger=1,
    )
    exporter.start()
    try:
        address = exporter.url.removeprefix("http://").split("/")[0]
        cluster = {"relabel_configs": [{"target_label": "cluster", "replacement": "north"}]}
        with prometheus(folder / "server", [address], scrape=cluster) as server:
            events = [json.loads(line) for line in telemetry_lines("run1")]
            cut = max(i for i, e in enumerate(events) if e["event_type"] == "PPO_UPDATE_COMPLETED")
            for event in (*events[: cut - 400], *events_of_others(events[cut])):
                exporter.emit(event)
            first = scrapes(server)
            wait_until(lambda: scrapes(server) > first + 1, "two scrapes", 30.0, every=0.2)
            for event in (*events[cut - 400 :], *events_of_others(events[cut])):
                exporter.emit(event)
            second = scrapes(server)
            wait_until(lambda: scrapes(server) > second + 1, "two scrapes", 30.0, every=0.2)
            yield server
    finally:
        exporter.close()


def scrapes(server: Prometheus) -> float:
    """How many pages the server has stored."""
    return server.value('esper_exporter_scrapes_total{job="esper"}') or 0.0


def events_of_others(update: dict[str, Any]) -> list[dict[str, Any]]:
    """Events of an update, a host's epoch and the infrastructure, with what run1 does not tell."""
    now = datetime.now(UTC).isoformat()

    def event(kind: str, data: dict[str, Any]) -> dict[str, Any]:
        return {
            **update,
            "event_type": kind,
            "timestamp": now,
            "event_id": f"{kind} {now}",
            "data": data,
        }

    return [
        event("PPO_UPDATE_COMPLETED", {**update["data"], **UPDATE, "batch": 99}),
        event("INFRASTRUCTURE_SNAPSHOT", INFRASTRUCTURE),
        event("ALLOCATOR_STATS", ALLOCATOR),
        event(
            "EPOCH_COMPLETED",
            {
                "env_id": 0,
                "val_accuracy": 50.0,
                "val_loss": 1.0,
                "inner_epoch": 1,
                **HOST_EPOCH,
            },
        ),
    ]
