"""Show the demo's progress: a live line on a terminal, a line per update elsewhere."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from esper_exporter.demo.training import Batch

_CLEAR = "\r\x1b[K"


class Display:
    """Writes to a stream. If the reader is gone, the training continues."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._line = ""
        self._latches: tuple[str, ...] = ()

    def say(self, text: str) -> None:
        """Print a permanent line."""
        self._write(f"{_CLEAR}{text}\n{self._line}" if self._line else f"{text}\n")

    def update(self, batch: Batch, latches: Iterable[str]) -> None:
        """Show a finished batch; ``latches`` are all that are set, a word or two each."""
        lit = tuple(latches)
        if new := [latch for latch in lit if latch not in self._latches]:
            self.say(f"update {batch.number}: latched: {', '.join(new)}")
        self._latches = lit
        parts = [
            f"update {batch.number}",
            f"return {batch.mean_return:.2f}",
            f"entropy {batch.entropy:.2f}" if batch.carried_out else "skipped",
            f"latched: {', '.join(lit)}" if lit else "no latches",
            f"accuracy {batch.accuracy:.1f} %",
            f"{batch.seconds:.1f} s",
        ]
        line = " · ".join(parts)
        if self._live:
            self._line = line[: shutil.get_terminal_size().columns - 1]
            self._write(_CLEAR + self._line)
        else:
            self._write(line + "\n")

    def close(self) -> None:
        """End the live line; its last content stays."""
        if self._line:
            self._line = ""
            self._write("\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
