"""The lines that ``esper-exporter run`` prints itself: where the page is, and missing metrics."""

from __future__ import annotations

import os
import stat
import sys

NOTHING_ATTACHED = (
    "nothing was attached, so this run has no metrics: `run` attaches by itself to programs that"
    " import esper's telemetry hub; any other starts esper_exporter.Exporter or an adapter"
)


def page_is_served(address: str, *, by_agent: bool) -> str:
    """The line that names the page; an agent serves it, or the command itself."""
    return f"the run's page is {address}/" + (", served by this node's agent" if by_agent else "")


def notify(text: str) -> None:
    """Print a line to standard error, but never into a pipe: what reads that expects the
    program's own output and nothing else."""
    try:
        if not stat.S_ISFIFO(os.fstat(sys.stderr.fileno()).st_mode):
            print(f"esper-exporter: {text}", file=sys.stderr, flush=True)
    except (AttributeError, OSError, ValueError):
        pass  # closed, or none
