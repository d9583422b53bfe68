"""Samples of a rendered page: which series each line is of, and its value.

A page is read many times and its series hardly change, so each distinct line start is parsed once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families

PARSED_AT_ONCE = 50
"""New series that are parsed before other threads get a turn."""

Labels = tuple[tuple[str, str], ...]


class PageSamples:
    """Reads pages in Prometheus' text format. ``external`` labels are added to every series that
    has no label of the same name, as Prometheus adds its external labels."""

    def __init__(self, external: Mapping[str, str]) -> None:
        self._external = dict(external)
        self._known: dict[bytes, Labels] = {}

    def read(self, page: bytes) -> Iterator[tuple[Labels, float, int | None]]:
        """Each sample: its labels in order of their names (``__name__`` among them, none empty),
        its value, and its own time in milliseconds where the page has one."""
        seen: dict[bytes, Labels] = {}
        fresh = 0
        for line in page.split(b"\n"):
            if not line or line.startswith(b"#"):
                continue
            start, rest = _split(line)
            labels = self._known.get(start)
            if labels is None:
                labels = self._parse(start)
                fresh += 1
                if fresh % PARSED_AT_ONCE == 0:
                    time.sleep(0)
            seen[start] = labels
            yield labels, float(rest[0]), int(rest[1]) if len(rest) > 1 else None
        self._known = seen

    def _parse(self, start: bytes) -> Labels:
        family = next(iter(text_string_to_metric_families(f"{start.decode()} 0\n")))
        sample = family.samples[0]
        labels = {**self._external, **sample.labels, "__name__": sample.name}
        return tuple(sorted((name, value) for name, value in labels.items() if value))


def _split(line: bytes) -> tuple[bytes, list[bytes]]:
    """A line's start (name and labels), and the value and time behind it: neither has a brace."""
    close = line.rfind(b"}")
    if close >= 0:
        return line[: close + 1], line[close + 1 :].split()
    start, *rest = line.split()
    return start, rest
