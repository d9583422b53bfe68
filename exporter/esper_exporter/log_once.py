"""Log lines that come once per kind, however often their cause repeats."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("esper_exporter")

MAX_WARNINGS = 256


class LogOnce:
    """Warnings about events, and the exporter's own errors. Nothing here raises.

    ``count`` is called with the place of each error. While ``busy`` returns True the calling
    thread holds the exporter's state: log handlers are foreign code and must not run then, so
    lines are kept until `flush`.
    """

    def __init__(
        self, count: Callable[[str], None], busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._count = count
        self._busy = busy
        self._seen: set[str] = set()
        self._lines: deque[tuple[int, str, Any]] = deque()

    @property
    def pending(self) -> bool:
        """Whether lines are kept."""
        return bool(self._lines)

    def warn(self, text: str) -> None:
        """Log a warning the first time it comes, up to ``MAX_WARNINGS`` different ones."""
        if text not in self._seen and len(self._seen) < MAX_WARNINGS:
            self._seen.add(text)
            self._log(logging.WARNING, text, None)

    def error(self, where: str) -> None:
        """Count the exception that is being handled, and log it the first time at this place."""
        try:
            self._count(where)
            self.log_error(where)
        except Exception:  # pragma: no cover - nothing is left to report it with
            return

    def log_error(self, where: str) -> None:
        """Log the exception that is being handled, the first time at this place."""
        if where not in self._seen:
            self._seen.add(where)
            text = f"internal error ({where}); the training goes on"
            self._log(logging.ERROR, text, sys.exc_info())

    def _log(self, level: int, text: str, problem: Any) -> None:
        self._lines.append((level, text, problem))
        if not self._busy():
            self.flush()

    def flush(self) -> None:
        """Log the lines that were kept. Not to be called while the state is held."""
        while self._lines:
            try:
                level, text, problem = self._lines.popleft()
                logger.log(level, "%s", text, exc_info=problem)
            except Exception:
                # A log handler that raises, or another thread that was faster.
                continue
