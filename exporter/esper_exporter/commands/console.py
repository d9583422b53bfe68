"""What every command has in common: its name, exit codes, errors and standard output."""

from __future__ import annotations

import os
import sys

PROGRAM = "esper-exporter"

OK = 0
FAILED = 1
"""Something could not be read, served or written; a line on standard error says what."""
INTERRUPTED = 130
"""Ended by Ctrl-C before there was a result."""


class CommandError(Exception):
    """Something that ends a command; the message is one line for the user."""


def write_out(data: bytes) -> None:
    """Write to standard output; a reader that has gone away has all it wanted.

    Raises CommandError when it cannot be written.
    """
    if sys.stdout is None:
        raise CommandError("standard output is closed")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise CommandError(f"standard output: {error.strerror}") from error
