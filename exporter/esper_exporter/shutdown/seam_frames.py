"""Takes the exporter's frames out of a traceback: what is printed is what would have been.

An error that passes a seam of an adapter has the seam's frame between two of the trainer's. A frame
in which an error was raised stays, ours too.
"""

from __future__ import annotations

import os
from itertools import pairwise
from types import TracebackType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SEAMS = (
    os.path.join(_PACKAGE, "adapters", ""),
    os.path.join(_PACKAGE, "probes", "torch", "loop_hooks.py"),
)


def hide_seams(error: BaseException) -> None:
    """Unlink the seams' frames from the tracebacks of ``error`` and of the errors behind it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = _without_seams(each.__traceback__)
        left += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions


def _without_seams(trace: TracebackType | None) -> TracebackType | None:
    entries = []
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    kept = [
        entry
        for entry in entries
        if entry is entries[-1] or not entry.tb_frame.f_code.co_filename.startswith(_SEAMS)
    ]
    if len(kept) < len(entries):
        for entry, following in pairwise(kept):
            entry.tb_next = following
    return kept[0] if kept else None
