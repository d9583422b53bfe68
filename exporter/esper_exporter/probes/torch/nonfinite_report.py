"""The non-finite sources of an update, each reported once, in the words of the latches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

Report = Callable[[str], None]
Found = Iterator[tuple[str, str | None, str]]

WORDS = {"nan": "NaN", "inf": "Inf"}


class Findings:
    """The non-finite sources of one update; it calls ``report`` with each new one at once."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._found: dict[str, None] = {}

    def add(self, found: Iterable[tuple[str, str | None, str]]) -> None:
        """Sources as (source, head or layer or None, "nan" or "inf")."""
        new = []
        for source, head, kind in found:
            text = f"{source}[{head}]: {WORDS[kind]}" if head else f"{source}: {WORDS[kind]}"
            if text not in self._found:
                self._found[text] = None
                new.append(text)
        if new:
            self._report("; ".join(new))

    @property
    def detail(self) -> str:
        """All sources so far; empty when everything was finite."""
        return "; ".join(self._found)
