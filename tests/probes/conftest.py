"""The probe's tests need torch, which the tests' environment has for one version of Python."""

from __future__ import annotations

import importlib.util

REASON = "torch is installed for the tests only on Python 3.11 (pyproject.toml, extra dev)"

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]


def pytest_report_header() -> str | None:
    return None if importlib.util.find_spec("torch") else f"tests/probes left out: {REASON}"
