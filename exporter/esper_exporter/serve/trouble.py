"""Telling what went wrong, once per kind, so that a fault at every scrape is one log line."""

from __future__ import annotations

import logging
from collections.abc import Callable

LOG = logging.getLogger("esper_exporter.serve")

_MAX_KINDS = 256


class Trouble:
    """Logs the first failure of each kind; ``on_error(where)`` hears of every one."""

    def __init__(self, on_error: Callable[[str], None] | None) -> None:
        self._on_error = on_error
        self._told: set[tuple[str, str, str]] = set()

    def report(self, where: str, error: BaseException) -> None:
        """``where`` is a fixed word of ours; the kind is it with the error's type and place."""
        if self._on_error is not None:
            try:
                self._on_error(where)
            except Exception as raised:
                self._log("on_error", raised)
        self._log(where, error)

    def _log(self, where: str, error: BaseException) -> None:
        kind = (where, type(error).__qualname__, _place(error))
        if kind in self._told or len(self._told) >= _MAX_KINDS:
            LOG.debug("%s failed again: %s", where, type(error).__qualname__)
            return
        self._told.add(kind)
        LOG.error("%s failed; told once per kind", where, exc_info=error)


def _place(error: BaseException) -> str:
    """Where an exception was raised: its text may differ every time."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
