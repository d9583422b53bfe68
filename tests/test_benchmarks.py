"""`make bench` runs and measures everything it promises; the figures are its own affair."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
OF_TORCH = (
    "probe: an update with it / without, 64x64",
    "probe: an update with it / without, 5M parameters",
    "probe: clipping / clip_grad_norm_, 64x64",
    "probe: clipping / clip_grad_norm_, 5M parameters",
    "an update with TensorBoard / without",
    "an update with wandb.watch / without",
    "an update with Lightning's grad_norm / without",
)
NAMES = {
    "page, text",
    "page, OpenMetrics",
    "page, gzip",
    "publish a policy update",
    "publish 64 envs x 9 slots",
    "update to TensorBoard",
    "update to W&B offline",
    "stolen from training a scrape",
    "memory of 16,000 series",
    "scrape by Prometheus",
    "emit PPO_UPDATE_COMPLETED, dict",
    "emit EPOCH_COMPLETED, dict",
    "emit last_action, live",
    "an event of a replay, live",
    "an event of a replay",
    *(OF_TORCH if find_spec("torch") else ()),
    "vitals: a scrape while NVML hangs / not",
    "vitals: a training step while NVML hangs / not",
    "vitals: a sample of 8 GPUs",
    "vitals: a sample of host and process",
    "start: time",
    "start: memory",
}


def test_the_benchmarks_run_and_print_every_figure(tmp_path: Path) -> None:
    reported = tmp_path / "bench.json"
    paths = [str(ROOT), str(ROOT / "exporter")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", str(reported)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    names = {result["name"] for result in json.loads(reported.read_text())["results"]}
    assert names >= NAMES
    assert all(name in done.stdout for name in NAMES)
