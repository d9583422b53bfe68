"""Show a replay's progress: a bar on a terminal, lines of text elsewhere."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from typing import IO, Any, Protocol

from esper_exporter.replay.lines import STANDARD_INPUT

_REDRAW_SECONDS = 0.1
_USUAL_COLUMNS = 80
_USUAL_ROWS = 24


class Progress(Protocol):
    """Shows a replay's progress and prints text beside it."""

    def on_bytes(self, count: int) -> None:
        """Count bytes read from a file, as on disk."""

    def on_line(self) -> None:
        """Count a line fed."""

    def say(self, text: str) -> None:
        """Print a line of text for the user."""

    def close(self) -> None:
        """End the display: the replay is over."""


class Text:
    """Prints text only."""

    def on_bytes(self, count: int) -> None: ...

    def on_line(self) -> None: ...

    def say(self, text: str) -> None:
        # The reader may have gone; keep serving the page.
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None: ...


class Bar:
    """A progress bar: the share of the files' bytes, if known, and the line number."""

    def __init__(self, total_bytes: int | None, stream: IO[str]) -> None:
        from tqdm import tqdm

        form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"
        # Some terminals report 0 × 0, and a bar of that size is invisible.
        sized = os.get_terminal_size(stream.fileno()).columns > 0
        self._bar: Any = tqdm(
            total=total_bytes,
            file=stream,
            desc="line 0",
            bar_format=form if total_bytes else "{desc} {elapsed}",
            ncols=None if sized else _USUAL_COLUMNS,
            nrows=None if sized else _USUAL_ROWS,
            dynamic_ncols=sized,
        )
        self._write = tqdm.write
        self._stream = stream
        self._lines = 0
        self._drawn = 0.0

    def on_bytes(self, count: int) -> None:
        self._bar.n += count

    def on_line(self) -> None:
        self._lines += 1
        now = time.monotonic()
        if now - self._drawn >= _REDRAW_SECONDS:
            self._drawn = now
            self._draw()

    def say(self, text: str) -> None:
        self._write(text, file=self._stream)

    def close(self) -> None:
        if not self._bar.disable:
            self._draw()
            self._bar.close()

    def _draw(self) -> None:
        self._bar.set_description_str(f"line {self._lines:,}", refresh=False)
        self._bar.refresh()


def progress_for(files: Sequence[str], grows: bool) -> Progress:
    """A bar when standard error is a terminal and tqdm (extra ``progress``) is installed, plain
    text otherwise."""
    stream = sys.stderr
    if stream is None or not stream.isatty() or importlib.util.find_spec("tqdm") is None:
        return Text()
    known = not grows and STANDARD_INPUT not in files
    return Bar(sum(os.path.getsize(name) for name in files) if known else None, stream)
