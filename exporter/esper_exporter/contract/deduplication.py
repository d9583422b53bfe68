"""Drops repetitions: the same event twice, or the same happening under its old and new name."""

from __future__ import annotations

from collections import OrderedDict, deque
from operator import attrgetter

from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.events import Event

MAX_PENDING = 1024
MAX_IDS = 8192

MAX_UNREAD = 64
"""Arrivals whose identity is not looked at yet."""

_IDENTITIES = {
    row.name: attrgetter(*row.identity) for row in TYPES.values() if len(row.identity) > 1
}


class _Waiting:
    """Arrivals under one name that wait for the other."""

    __slots__ = ("count", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 1


class DualEmitFilter:
    """Counts an event once that is emitted under both its names, in either order.

    A repeat under the same name is another happening; one under the other name uses up the
    arrival that it repeats. Remembers the last 1024 that wait for their other name. Until a type
    comes under its second name there is nothing to compare: its arrivals are only kept.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[object, ...], _Waiting] = OrderedDict()
        self._names: dict[str, str] = {}
        self._kept: deque[tuple[str, tuple[object, ...]]] | None = deque(maxlen=MAX_PENDING)
        self._unread: list[Event] = []

    def is_duplicate(self, event: Event) -> bool:
        """Whether the event repeats, under the other name, an earlier report."""
        values_of = _IDENTITIES.get(event.type)
        if values_of is None:
            return False
        if self._kept is not None:
            if self._names.setdefault(event.type, event.name) == event.name:
                self._unread.append(event)
                if len(self._unread) >= MAX_UNREAD:
                    self._read(self._kept)
                return False
            self._read(self._kept)
            kept, self._kept = self._kept, None
            for kind, earlier in kept:
                self._repeats(kind, self._names[kind], earlier)
        return self._repeats(event.type, event.name, values_of(event.data))

    def _read(self, kept: deque[tuple[str, tuple[object, ...]]]) -> None:
        unread, self._unread = self._unread, []
        kept.extend((each.type, _IDENTITIES[each.type](each.data)) for each in unread)

    def _repeats(self, kind: str, name: str, reported: tuple[object, ...]) -> bool:
        for value in reported:
            if value != value:  # NaN does not equal itself: a word replaces it
                reported = tuple("NaN" if each != each else each for each in reported)
                break
        key = (kind, reported)
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = _Waiting(name)
            if len(self._waiting) > MAX_PENDING:
                self._waiting.popitem(last=False)
        elif waiting.count and waiting.name != name:
            waiting.count -= 1
            return True
        else:
            waiting.name = name
            waiting.count += 1
        return False


class EventIdFilter:
    """Tells an event that was delivered before, by its id; remembers the last 8192."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._order: deque[str] = deque(maxlen=MAX_IDS)

    def seen(self, event_id: str) -> bool:
        """Whether this id came before; from now on it did."""
        ids = self._ids
        known = len(ids)
        ids.add(event_id)  # not looked up first: the place in memory is mostly far away
        if len(ids) == known:
            return True
        order = self._order
        if known == MAX_IDS:
            ids.discard(order[0])
        order.append(event_id)
        return False
