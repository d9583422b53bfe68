"""Why a run ended, in the words of ``esper_run_failed{reason}``."""

from __future__ import annotations

import re
from enum import Enum


class Reason(Enum):
    """What ended a run that did not finish."""

    NONFINITE = "nonfinite"
    OOM = "oom"
    EXCEPTION = "exception"
    SIGNAL = "signal"
    KILLED = "killed"
    SEGFAULT = "segfault"
    ABORT = "abort"
    EXIT = "exit"
    DIED = "died"
    UNKNOWN = "unknown"


REASONS = tuple(reason.value for reason in Reason)

_NONFINITE_TEXT = re.compile(
    r"\b(nan|nans|inf|infs|infinity|infinite|non-?finite|not finite|finiteness)\b", re.IGNORECASE
)
_OOM_TEXT = re.compile(r"\bout of memory\b|\bcannot allocate memory\b", re.IGNORECASE)
_LONGEST_TEXT = 4096


def reason_of(error: BaseException | None) -> Reason | None:
    """The reason for an exception; None for one that means a normal end.

    Without an exception, and for ``sys.exit()`` or ``sys.exit(0)``, the end is normal. Any other
    exit code says that something failed, not what: ``UNKNOWN``. torch's out-of-memory error is
    known by its name, because torch need not be there. Never raises, whatever the exception does
    when it is asked for its text or its exit code.
    """
    try:
        return _reason_of(error)
    except BaseException:  # even SystemExit: the code of the exit is the training's to decide
        return Reason.EXCEPTION


def _reason_of(error: BaseException | None) -> Reason | None:
    if error is None or isinstance(error, GeneratorExit):
        return None
    if isinstance(error, SystemExit):
        return None if error.code in (None, 0) else Reason.UNKNOWN
    if isinstance(error, KeyboardInterrupt):
        return Reason.SIGNAL
    names = {kind.__name__ for kind in type(error).__mro__}
    text = _text(error)
    if names & {"MemoryError", "OutOfMemoryError"} or _OOM_TEXT.search(text):
        return Reason.OOM
    if "FloatingPointError" in names or _NONFINITE_TEXT.search(text):
        return Reason.NONFINITE
    return Reason.EXCEPTION


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_LONGEST_TEXT]
    except BaseException:  # a foreign exception whose text raises, SystemExit even
        return ""
