"""The adapters' tests need torch, which the tests' environment has for one version of Python."""

from __future__ import annotations

import importlib.util

REASON = "torch is installed for the tests only on Python 3.11 (pyproject.toml, extra dev)"
NEED_TORCH = ["test_attach.py", "test_watch.py", "third_party"]

collect_ignore = [] if importlib.util.find_spec("torch") else NEED_TORCH


def pytest_report_header() -> str | None:
    if importlib.util.find_spec("torch"):
        return None
    return f"tests/adapters: {', '.join(NEED_TORCH)} not run: {REASON}"
