"""Log each kind of problem once, however often its cause repeats."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

logger = logging.getLogger("esper_exporter")

MAX_KINDS = 256


class Kinds:
    """The kinds of problem logged so far, at most ``MAX_KINDS``."""

    def __init__(self) -> None:
        self._seen: set[Hashable] = set()

    def first(self, kind: Hashable) -> bool:
        """Whether to log: the kind is new, and there is room to remember it."""
        if kind in self._seen or len(self._seen) >= MAX_KINDS:
            return False
        self._seen.add(kind)
        return True


class LogOnce:
    """Logs warnings about events, and internal errors, once per kind. No method raises.

    It calls ``count`` with the place of each error. While ``busy`` returns True the calling thread
    holds the exporter's state: log handlers are foreign code and must not run then, so `flush`
    writes the lines later.
    """

    def __init__(
        self, count: Callable[[str], None], busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._count = count
        self._busy = busy
        self._warnings = Kinds()
        self._errors = Kinds()
        self.lines: deque[tuple[int, str, Any]] = deque()
        """Lines that wait for `flush`."""

    def warn(self, text: str) -> None:
        """Log a warning the first time, up to ``MAX_KINDS`` different ones."""
        if self._warnings.first(text):
            self._log(logging.WARNING, text, None)

    def error(self, where: str) -> None:
        """Count the exception being handled, and log the first one at this place."""
        try:
            self._count(where)
            self.log_error(where)
        except Exception:  # pragma: no cover - the report itself failed
            return

    def log_error(self, where: str) -> None:
        """Log the exception being handled if it is the first one at this place."""
        if self._errors.first(where):
            text = f"internal error ({where}); the training continues"
            self._log(logging.ERROR, text, sys.exc_info())

    def _log(self, level: int, text: str, problem: Any) -> None:
        self.lines.append((level, text, problem))
        if not self._busy():
            self.flush()

    def flush(self) -> None:
        """Log the waiting lines. Do not call it while holding the state."""
        while self.lines:
            try:
                level, text, problem = self.lines.popleft()
                logger.log(level, "%s", text, exc_info=problem)
            except Exception:
                # A log handler raised, or another thread took the line first.
                continue


class ErrorLog:
    """Logs the first exception of each kind; calls ``on_error(where)`` for every one.

    An exception's kind is its place in the server (``where``), its type, and the line that raised
    it: its text may differ every time. So a fault at every scrape gives one log line.
    """

    def __init__(self, on_error: Callable[[str], None] | None, log: logging.Logger) -> None:
        self._on_error = on_error
        self._logger = log
        self._kinds = Kinds()

    def report(self, where: str, error: BaseException) -> None:
        """Report an exception; ``where`` is a fixed word."""
        if self._on_error is not None:
            try:
                self._on_error(where)
            except Exception as raised:
                self._log("on_error", raised)
        self._log(where, error)

    def _log(self, where: str, error: BaseException) -> None:
        if self._kinds.first((where, type(error).__qualname__, _raised_at(error))):
            self._logger.error(
                "%s failed; further failures of this kind are logged at debug level",
                where,
                exc_info=error,
            )
        else:
            self._logger.debug("%s failed again: %s", where, type(error).__qualname__)


def _raised_at(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
