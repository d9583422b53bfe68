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
        """``where`` is a fixed word of ours; the kind is it with the error's type and text."""
        if self._on_error is not None:
            try:
                self._on_error(where)
            except Exception as raised:
                self._log("on_error", raised)
        self._log(where, error)

    def _log(self, where: str, error: BaseException) -> None:
        try:
            text = str(error)
        except Exception:  # an exception of foreign code whose text raises too
            text = "?"
        kind = (where, type(error).__qualname__, text[:200])
        if kind in self._told or len(self._told) >= _MAX_KINDS:
            LOG.debug("%s failed again: %s", where, text)
            return
        self._told.add(kind)
        LOG.error("%s failed; told once per kind", where, exc_info=error)
