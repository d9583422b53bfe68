"""The batch job of a run: its id, partition and user are labels of `esper_run_info` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from esper_exporter import Exporter
from esper_exporter.metrics.families.run_metrics import JOB_LABELS
from esper_exporter.settings import read_settings
from support.command import run
from support.pages import samples
from support.recordings import telemetry
from support.states import started, update

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_PARTITION": "gpu-long",
    "SLURM_JOB_USER": "ada",
}


@pytest.fixture
def in_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)


def page_of(**settings: Any) -> str:
    exporter = Exporter(port="off", share="off", state_dir="off", **settings)
    exporter.emit(started())
    exporter.emit(update())
    return exporter.render().decode()


def job_of(page: str) -> tuple[str, ...]:
    """The job labels of the page's one run; empty where a label has no value."""
    (labels,) = [dict(labels) for name, labels in samples(page) if name == "esper_run_info"]
    return tuple(labels.get(name, "") for name in JOB_LABELS)


@pytest.mark.usefixtures("in_slurm")
def test_a_run_of_a_slurm_job_names_its_job_partition_and_user() -> None:
    assert job_of(page_of()) == ("4711", "gpu-long", "ada")


@pytest.mark.usefixtures("in_slurm")
def test_no_other_series_carries_the_job() -> None:
    with_job = {name for name, labels in samples(page_of()) if set(JOB_LABELS) & set(dict(labels))}
    assert with_job == {"esper_run_info"}


def test_outside_a_job_the_labels_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)
    assert job_of(page_of()) == ("", "", "")


def test_arguments_and_own_variables_win_over_slurm() -> None:
    environ = SLURM | {"ESPER_EXPORTER_JOB_PARTITION": "queue"}
    found = read_settings({"job_user": "grace"}, environ)
    assert (found.job_id, found.job_partition, found.job_user) == ("4711", "queue", "grace")


def test_a_name_that_is_too_long_is_an_error_that_names_its_variable() -> None:
    with pytest.raises(ValueError, match=r"^SLURM_JOB_USER must have at most 256 characters"):
        read_settings({}, SLURM | {"SLURM_JOB_USER": "x" * 257})


@pytest.mark.usefixtures("in_slurm")
def test_a_job_that_replays_a_recording_does_not_claim_the_run() -> None:
    assert job_of(page_of(watch_process=False)) == ("", "", "")
    assert job_of(page_of(watch_process=False, job_id="7")) == ("7", "", "")


@pytest.mark.usefixtures("in_slurm")
def test_a_backfilled_run_has_no_job_of_the_backfill(tmp_path: Path) -> None:
    out = tmp_path / "run1.om"
    done = run("backfill", telemetry("run1"), "--step", "600", "--out", out)
    assert done.returncode == 0, done.stderr
    infos = [line for line in out.read_text().splitlines() if line.startswith("esper_run_info{")]
    assert infos
    assert not [line for line in infos if "4711" in line or "ada" in line]
