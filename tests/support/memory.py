"""How much memory this process allocates, without what other tests or the allocator keep."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def allocated_bytes() -> Iterator[Callable[[], int]]:
    """Give a function that returns the bytes that Python objects allocated since it was made.

    The resident size of a test process is no measure: after a page of 16 MB is freed, glibc takes
    the next one from its heap, and what lies between two pages stays resident.
    """
    already = tracemalloc.is_tracing()
    if not already:
        tracemalloc.start(1)
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[0] - before
    finally:
        if not already:
            tracemalloc.stop()
