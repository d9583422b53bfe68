"""A comparison of a store with two replicas counts what is missing, and why."""

from __future__ import annotations

from typing import Any, cast

import orjson
import pytest
from benchmarks.store.sample_counts import Span, compare
from benchmarks.store.store_servers import Server

SERIES = {"__name__": "esper_run_active", "instance": "1", "job": "esper"}


class Replica:
    """Answers with the samples of one series."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = seconds

    def query(self, expression: str, moment: float) -> list[dict[str, Any]]:
        return [{"metric": SERIES, "values": [[second, "1"] for second in self.seconds]}]


class Store:
    """Exports the samples of one series; None is a mark of its end."""

    def __init__(self, **values: float | None) -> None:
        self.values = values

    def bytes(self, path: str, **parameters: str) -> bytes:
        times = [int(float(name[1:].replace("_", ".")) * 1000) for name in self.values]
        line = {"metric": SERIES, "timestamps": times, "values": list(self.values.values())}
        return orjson.dumps(line)


@pytest.mark.parametrize(
    ("store", "lost", "ended", "duplicates", "foreign"),
    [
        (Store(s12=1.0, s18=1.0, s28=1.0), 0, 0, 0, 0),
        (Store(s12=1.0, s18=1.0), 1, 0, 0, 0),
        (Store(s12=1.0, s18=1.0, s29=None), 0, 1, 0, 0),
        (Store(s12=1.0, s13=None, s18=1.0), 1, 0, 0, 0),
        (Store(s11=1.0, s12=1.0, s18=1.0, s28=1.0), 0, 0, 1, 0),
        (Store(s12=1.0, s18=1.0, s28=1.0, s33=1.0), 0, 0, 0, 1),
    ],
)
def test_an_interval_is_lost_only_where_the_store_keeps_nothing_of_it(
    store: Store, lost: int, ended: int, duplicates: int, foreign: int
) -> None:
    replicas = [Replica(11, 16, 28), Replica(12, 18)]
    counts = compare(
        [cast("Server", each) for each in replicas],
        cast("Server", store),
        Span("north", 10, 40, 5),
        ["1"],
    )
    assert counts.windows == 3
    assert (counts.lost, counts.ended) == (lost, ended)
    assert (counts.duplicates, counts.foreign) == (duplicates, foreign)


def test_a_sample_at_the_beginning_belongs_to_the_window_before() -> None:
    """A range selector of Prometheus has it; the store is asked from just after it."""
    counts = compare(
        [cast("Server", Replica(10, 15))],
        cast("Server", Store(s15=1.0)),
        Span("north", 10, 40, 5),
        ["1"],
    )
    assert (counts.windows, counts.lost, counts.scraped) == (1, 0, 1)


def test_what_comes_late_is_not_lost() -> None:
    store = Store(s12=1.0)
    later = Store(s12=1.0, s18=1.0)

    class Slow:
        asked = 0

        def bytes(self, path: str, **parameters: str) -> bytes:
            self.asked += 1
            return (store if self.asked == 1 else later).bytes(path, **parameters)

    counts = compare(
        [cast("Server", Replica(12, 18))],
        cast("Server", Slow()),
        Span("north", 10, 40, 5),
        ["1"],
        patience=60.0,
    )
    assert (counts.windows, counts.lost, counts.late) == (2, 0, 1)


def test_a_lost_scrape_is_named_by_its_run_and_time() -> None:
    counts = compare(
        [cast("Server", Replica(11, 16))],
        cast("Server", Store(s16=1.0)),
        Span("north", 10, 40, 5),
        ["1"],
    )
    assert counts.lost_scrapes == {("1", 5): 1}
    assert "before 15: [[-4000, 1000]], [(1000, True)]" in counts.first_lost
