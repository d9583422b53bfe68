"""The clients that fetch pages, distinguished, and which of them come regularly."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from esper_exporter.serve.interfaces import Served, Visit

VISITS = 9
"""Visits remembered of each: enough for a median of eight gaps."""
MAX_CLIENTS = 64
MAX_CONNECTIONS = 32

LONGEST_INTERVAL_SECONDS = 300.0
"""Who comes more rarely than this does not come regularly."""
MISSED_VISITS = 3.0
"""A scraper that has missed so many visits, and `GRACE_SECONDS`, comes no more."""
GRACE_SECONDS = 5.0
OVERDUE = 1.5
"""Intervals after which a new connection of the same client is its old one's successor."""

_PEOPLE = re.compile(
    r"\s*(curl|wget|httpie|xh|mozilla|opera|lynx|links|elinks|w3m|postmanruntime|insomnia)\b",
    re.IGNORECASE,
)
"""What people look with; `watch curl` included."""
_SCRAPERS = re.compile(
    r"\s*(prometheus|vmagent|victoriametrics|grafana|alloy|opentelemetry|otelcol|telegraf|datadog)",
    re.IGNORECASE,
)

Key = tuple[str, str, float | None]
"""A client: address, user agent and scrape timeout. Two jobs of one server differ in the last."""


@dataclass(slots=True)
class Scraper:
    """One that fetches pages: when it came, and when it asked for the last pages it got."""

    key: Key
    visits: deque[float] = field(default_factory=lambda: deque(maxlen=VISITS))
    pages: deque[float] = field(default_factory=lambda: deque(maxlen=2))

    @property
    def pages_to_be_seen(self) -> int:
        """How many pages it must have got to have seen something.

        A client that names its timeout is followed until its page is known to have arrived. One
        that does not may have given up unnoticed; a new request shows that it still scrapes.
        """
        return 2 if self.key[2] is None else 1

    @property
    def last(self) -> float:
        """When it came last, by the monotonic clock."""
        return self.visits[-1]

    @property
    def interval(self) -> float | None:
        """Seconds between two visits, None before the second."""
        if len(self.visits) < 2:
            return None
        times = list(self.visits)
        return median(b - a for a, b in pairwise(times))

    def seen(self, since: float) -> int:
        """How many pages it got that it asked for since then; two at most are remembered."""
        return sum(asked >= since for asked in self.pages)

    def regular(self, now: float) -> bool:
        """Whether it comes at intervals and came lately. A client that calls itself a scraper does
        so from its first visit."""
        interval = self.interval
        if interval is None:
            _, agent, timeout = self.key
            named = timeout is not None or _SCRAPERS.match(agent) is not None
            return named and now - self.last <= LONGEST_INTERVAL_SECONDS
        if interval > LONGEST_INTERVAL_SECONDS:
            return False
        return now - self.last <= MISSED_VISITS * interval + GRACE_SECONDS

    @property
    def name(self) -> str:
        """Who it is, for the log."""
        address, agent, _ = self.key
        return f"{agent or 'a client'} at {address}"


class Scrapers:
    """The clients of a page, without people.

    Servers on one machine look alike; each keeps its connection open, which tells them apart.
    Clients that connect anew for each page are one.
    """

    def __init__(self) -> None:
        self._clients: dict[Key, dict[int, Scraper]] = {}

    def visit(self, visit: Visit | Served) -> Scraper | None:
        """Note that a client came for a page; None for a person. Told twice of a visit, it counts
        once."""
        if visit.timeout is None and _PEOPLE.match(visit.user_agent):
            return None
        key = (visit.address, visit.user_agent, visit.timeout)
        # The newest last: the client that has not come for longest makes room.
        connections = self._clients.pop(key, {})
        while len(self._clients) >= MAX_CLIENTS:
            self._clients.pop(next(iter(self._clients)))
        self._clients[key] = connections
        scraper = connections.pop(visit.connection, None) or Scraper(key)
        if scraper.visits:
            _drop_succeeded(connections, scraper, visit.asked_at)
        while len(connections) >= MAX_CONNECTIONS:
            connections.pop(next(iter(connections)))
        connections[visit.connection] = scraper
        if visit.asked_at not in scraper.visits:
            scraper.visits.append(visit.asked_at)
        return scraper

    def regular(self, now: float) -> list[Scraper]:
        """Those that come regularly, and came lately at that moment or came since."""
        return [scraper for scraper in self.all() if scraper.regular(now)]

    def all(self) -> Iterator[Scraper]:
        """All clients. Connections that were used once are one of them."""
        for key, connections in self._clients.items():
            once = [each for each in connections.values() if len(each.visits) == 1]
            yield from (each for each in connections.values() if len(each.visits) > 1)
            if once:
                yield _together(key, once)


def _together(key: Key, scrapers: Iterable[Scraper]) -> Scraper:
    whole = Scraper(key)
    whole.visits.extend(sorted(visit for each in scrapers for visit in each.visits))
    whole.pages.extend(sorted(page for each in scrapers for page in each.pages))
    return whole


def _drop_succeeded(connections: dict[int, Scraper], scraper: Scraper, now: float) -> None:
    """Forget the connection whose client has gone over to this one: it is overdue, and was not
    used any more when this one came."""
    for number, other in connections.items():
        interval = other.interval
        overdue = interval is not None and now - other.last > OVERDUE * interval
        if overdue and other.last <= scraper.visits[0]:
            del connections[number]
            return
