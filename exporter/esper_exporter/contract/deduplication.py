"""What was told already: the same event twice, or the same happening under its old and new name."""

from __future__ import annotations

from collections import OrderedDict
from operator import attrgetter

from esper_exporter.contract.event_table import ALIASES, TYPES
from esper_exporter.contract.events import Event

MAX_PENDING = 1024
MAX_IDS = 8192

_IDENTITIES = {
    row.name: attrgetter(*row.identity) for row in TYPES.values() if len(row.identity) > 1
}


class DualEmitFilter:
    """Counts a happening once that is emitted under both its names, in whichever order.

    A repeat under the same name is another happening; one under the other name uses up the
    arrival that it repeats. Remembers the last 1024 that wait for their other name.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[object, ...], dict[str, int]] = OrderedDict()

    def is_duplicate(self, event: Event) -> bool:
        """Whether the event repeats, under the other name, what was told before."""
        values_of = _IDENTITIES.get(event.type)
        if values_of is None:
            return False
        # NaN does not equal itself: a word stands in for it.
        told = values_of(event.data)
        key = (event.type, *["NaN" if value != value else value for value in told])
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = {}
            if len(self._waiting) > MAX_PENDING:
                self._waiting.popitem(last=False)
        other = event.type if event.name in ALIASES else TYPES[event.type].aliases[0]
        if waiting.get(other, 0) > 0:
            waiting[other] -= 1
            return True
        waiting[event.name] = waiting.get(event.name, 0) + 1
        return False


class EventIdFilter:
    """Tells an event that was delivered before, by its id; remembers the last 8192."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def seen(self, event_id: str) -> bool:
        """Whether this id came before; from now on it did."""
        if event_id in self._ids:
            return True
        self._ids[event_id] = None
        if len(self._ids) > MAX_IDS:
            self._ids.popitem(last=False)
        return False
