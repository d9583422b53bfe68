"""What all commands share: program name, exit codes, errors and standard output."""

from __future__ import annotations

import os
import sys

PROGRAM = "esper-exporter"

OK = 0
FAILED = 1
"""Reading, serving or writing failed; a line on standard error explains."""
INTERRUPTED = 130
"""Interrupted by Ctrl-C before there was a result."""


class CommandError(Exception):
    """An error that ends a command; the message is one line for the user."""


def write_out(data: bytes) -> None:
    """Write to standard output; a reader that closed the pipe is not an error.

    Raises CommandError when it cannot be written.
    """
    if sys.stdout is None:
        raise CommandError("standard output is closed")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at exit, and would report an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise CommandError(f"standard output: {error.strerror}") from error
