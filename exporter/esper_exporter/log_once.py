"""What went wrong, told in the log once per kind and counted every time."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger("esper_exporter")

MAX_WARNINGS = 256


class LogOnce:
    """Warnings about what came in, and errors of the exporter's own. Nothing here raises.

    ``count`` is called with the place of each error of its own.
    """

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._told: set[str] = set()

    def warn(self, text: str) -> None:
        """Log a warning once per kind, and not for ever new kinds."""
        if text not in self._told and len(self._told) < MAX_WARNINGS:
            self._told.add(text)
            logger.warning(text)

    def error(self, where: str) -> None:
        """An error of our own: told once with its traceback, counted, and the training goes on."""
        try:
            self._count(where)
            if where not in self._told:
                self._told.add(where)
                logger.exception("internal error (%s); the training goes on", where)
        except Exception:  # pragma: no cover - nothing is left to tell it with
            return
