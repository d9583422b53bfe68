"""The demo's tests train for real, with torch and scikit-learn, which the tests' environment has
for one version of Python."""

from __future__ import annotations

import importlib.util

THERE = all(importlib.util.find_spec(name) for name in ("torch", "sklearn"))
REASON = "torch is installed for the tests only on Python 3.11 (pyproject.toml, extra dev)"

collect_ignore_glob = [] if THERE else ["test_*.py"]


def pytest_report_header() -> str | None:
    return None if THERE else f"tests/demo left out: {REASON}"
