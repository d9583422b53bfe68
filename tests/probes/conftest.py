"""The probe's tests need torch, which the tests' environment has for one version of Python."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from esper_exporter import Exporter

REASON = "torch is installed for the tests only on Python 3.11 (pyproject.toml, extra dev)"

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]


def pytest_report_header() -> str | None:
    return None if importlib.util.find_spec("torch") else f"tests/probes left out: {REASON}"


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    yield Exporter(port=0, state_dir="off", linger=0, run_id="night-7", watch_process=False)
