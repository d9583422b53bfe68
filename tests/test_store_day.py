"""A day of a store's trial that ended early counts on from its file."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from benchmarks.store import day as trial
from benchmarks.store.sample_counts import Counts
from benchmarks.store.site import Plan, Site
from benchmarks.store.store_servers import TrialError

HOUR = 3600.0


def part(seconds: float, runs: int = 200, lost: int = 0) -> bytes:
    zeros = dict.fromkeys(trial.COUNTED, 0)
    counted = {**zeros, "scraped": 20, "windows": 10, "stored": 10 - lost, "lost": lost}
    line = {"runs": runs, "interval": 15, "seconds": seconds, "series": 7, **counted}
    return orjson.dumps(line) + b"\n"


def site(folder: Path, *lines: bytes, runs: int = 200) -> Site:
    log = folder / "day.jsonl"
    log.write_bytes(b"".join(lines))
    plan = Plan(runs, 15, 15, (), ("", ""), folder, HOUR, log)
    fleet: Any = SimpleNamespace(began=time.time() - HOUR, name="night")
    box: Any = SimpleNamespace(fired={})
    return Site(plan, folder, fleet, 0, box, lambda line: None)


def test_what_the_file_has_is_not_run_again(tmp_path: Path) -> None:
    found = site(tmp_path, part(HOUR / 2), part(HOUR / 2), part(HOUR, runs=3))
    trial.day(found)
    assert found.compared == HOUR
    assert (found.counts.windows, found.counts.stored, found.counts.series) == (20, 20, 7)


def test_a_loss_of_an_earlier_part_fails_the_day(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="lost=2"):
        trial.day(site(tmp_path, part(HOUR / 2, lost=2), part(HOUR / 2)))


def test_the_rest_is_counted_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def compared(of: Site, begin: float, end: float) -> Counts:
        asked.append((begin, end))
        return Counts(series=7, scraped=4, windows=2, stored=2)

    monkeypatch.setattr(trial, "compared", compared)
    monkeypatch.setattr(trial.sample_counts, "drained", lambda *_: 0.0)
    monkeypatch.setattr(trial.time, "sleep", lambda seconds: None)
    found = site(tmp_path, part(HOUR / 2))
    trial.day(found)
    assert [end - begin for begin, end in asked[:2]] == [600, 600]
    assert all(one[1] == two[0] for one, two in pairwise(asked))
    assert found.compared == pytest.approx(HOUR, abs=60)
    assert found.counts.windows == 10 + 2 * len(asked)
    with pytest.raises(TrialError, match="--hours"):
        empty = site(tmp_path)
        object.__setattr__(empty.plan, "day", 0.0)
        trial.day(empty)
