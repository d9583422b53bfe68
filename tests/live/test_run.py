"""`esper-exporter run -- python -m esper.scripts.train`: the trainer's command line, unmodified.

Synthetic images stand in for torchvision's; everything else is the trainer's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from live.test_real_trainer import HOST, PHASES, PYTHON, SRC, TORCH, UPDATE, names_in
from support.command import environment
from support.pages import value
from support.ports import free_port

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not SRC, reason="not run: ESPER_LITE_SRC names no checkout of esper-lite"),
]
ROOT = Path(__file__).parents[2]
STUBS = Path(__file__).with_name("stubs")
MINUTES = 15
LOOK_EVERY = 0.2


@dataclass(frozen=True)
class Ended:
    """How a training ended, and what its page had."""

    code: int
    errors: str
    saved: Path
    names: set[str]
    last_page: str


def train(folder: Path, k: int, *, wrapped: bool, raise_at: int = 0) -> Ended:
    """The trainer's command line, under ``esper-exporter run`` if ``wrapped``."""
    folder.mkdir()
    config = folder / "config.json"
    config.write_text(
        json.dumps(
            {
                "task": "cifar_impaired",
                "n_envs": 2,
                "n_episodes": 3,
                "max_epochs": 6,
                "chunk_length": 6,
                "slots": ["r0c0", "r0c1"],
                "seed": 3,
                "batch_size_per_env": 64,
                "lstm_hidden_dim": 128,
                "recurrent_n_epochs": k,
            }
        )
    )
    assert SRC is not None
    variables = environment(
        PYTHONPATH=os.pathsep.join(map(str, (Path(SRC) / "src", STUBS, ROOT / "exporter"))),
        OMP_NUM_THREADS="1",
        LIVE_RAISE_AT=str(raise_at),
        ESPER_EXPORTER_LINGER="0",
        ESPER_EXPORTER_STATE_DIR=str(folder / "state"),
    )
    port, saved = free_port(), folder / "policy.pt"
    command = [
        *(PYTHON, "-m", "esper.scripts.train", "ppo", "--config-json", str(config)),
        *("--device", "cpu", "--devices", "cpu", "--num-workers", "0"),
        *("--compile-mode", "off", "--no-tui", "--save", str(saved)),
    ]
    if wrapped:
        run = [sys.executable, "-m", "esper_exporter", "run", "--run-id", "cli"]
        command = [*run, "--port", str(port), "--", *command]
    with (folder / "stderr").open("wb") as errors, (folder / "stdout").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=output, stderr=errors)
        ended, names = threading.Event(), set()
        looking = threading.Thread(target=look, args=(port, ended, names), daemon=True)
        looking.start()
        try:
            code = process.wait(MINUTES * 60)
        finally:
            process.kill()
            ended.set()
            looking.join(30)
    kept = sorted((folder / "state").glob("*.final.prom"))
    last = kept[-1].read_text() if kept else ""
    return Ended(code, (folder / "stderr").read_text(), saved, names | names_in(last), last)


def look(port: int, ended: threading.Event, names: set[str]) -> None:
    """Collect the names on the page while the training runs, as a scraper sees them."""
    while not ended.wait(LOOK_EVERY):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                names |= names_in(answer.read().decode())
        except OSError:
            continue


@pytest.mark.parametrize("k", [1, 3])
def test_all_fields_are_measured_and_the_policy_is_the_same(k: int, tmp_path: Path) -> None:
    import torch

    plain = train(tmp_path / "plain", k, wrapped=False)
    measured = train(tmp_path / "measured", k, wrapped=True)
    assert (plain.code, measured.code) == (0, 0), measured.errors[-2000:]
    wanted = {f"esper_tamiyo_{name}" for name in UPDATE}
    wanted |= {f"esper_tolaria_{name}" for name in HOST}
    wanted |= {f"esper_torch_{name}" for name in TORCH}
    assert wanted <= measured.names
    assert len(UPDATE) + 2 + len(HOST) + len(PHASES) + len(TORCH) == 49 - 2
    assert value(measured.last_page, "esper_tamiyo_updates_total") == 3
    one, other = (torch.load(each.saved, weights_only=False) for each in (plain, measured))
    assert same(one, other)


def same(one: object, other: object) -> bool:
    """Whether two saved states are equal to the bit."""
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        return (
            isinstance(other, list | tuple)
            and len(one) == len(other)
            and all(map(same, one, other))
        )
    return bool(one == other)


def test_a_training_that_raises_ends_the_same(tmp_path: Path) -> None:
    """Exit code, error, and the traceback to the letter."""
    plain = train(tmp_path / "plain", 1, wrapped=False, raise_at=700)
    measured = train(tmp_path / "measured", 1, wrapped=True, raise_at=700)
    assert plain.code == measured.code == 1
    assert "RuntimeError: " in last_traceback(plain.errors).splitlines()[-1]
    assert last_traceback(measured.errors) == last_traceback(plain.errors)
    assert value(measured.last_page, "esper_run_failed", reason="exception") == 1


def last_traceback(errors: str) -> str:
    """The last traceback and its error, without what is printed after it."""
    last = errors[errors.rindex("Traceback (most recent call last)") :]
    return re.split(r"(?<=\n)(?! |Traceback|\w+Error)", last)[0]
