"""Answers that viewers share: built, and compressed, once for all who ask at about one time."""

from __future__ import annotations

from dataclasses import dataclass

from isal import igzip

SHARED_SECONDS = 0.25
"""Viewers that poll within so many seconds of each other share one answer."""
MAX_KEPT = 16

Place = tuple[str, int | None, str | None]
"""What one address asks for: the run, the environment with an open drawer, and the cursor."""
Found = tuple[str, bytes | None]
"""An answer's ETag and body; no body where the viewer has it already."""


@dataclass(slots=True)
class KeptAnswer:
    """An answer: when it was last found current, its ETag, and its body (None until a viewer needs
    one)."""

    checked: float
    name: str
    body: bytes | None = None

    def found(self, known: str) -> Found | None:
        """What a viewer gets that knows the ETag ``known``; None where the body is not built."""
        if known == self.name:
            return self.name, None
        return None if self.body is None else (self.name, self.body)


class SharedAnswers:
    """Keeps the last answers.

    `at_once` and `compressed` are for any thread; the owner calls `keep` on one thread at a time.
    """

    def __init__(self) -> None:
        self._kept: dict[Place, KeptAnswer] = {}
        self._compressed: dict[int, tuple[bytes, bytes]] = {}

    def at_once(self, place: Place, known: str, now: float) -> Found | None:
        """The answer where another viewer has just had it. Never waits."""
        kept = self._kept.get(place)
        if kept is None or not 0 <= now - kept.checked < SHARED_SECONDS:
            return None
        return kept.found(known)

    def last(self, place: Place) -> KeptAnswer | None:
        """The last answer, however old."""
        return self._kept.get(place)

    def keep(self, place: Place, name: str, now: float) -> KeptAnswer:
        """The answer with this ETag, current at ``now``; new and without a body where it was
        another one so far."""
        kept = self._kept.get(place)
        if kept is None or kept.name != name:
            while len(self._kept) >= MAX_KEPT and place not in self._kept:
                self._kept.pop(next(iter(self._kept)))
            kept = self._kept[place] = KeptAnswer(now, name)
        kept.checked = now
        return kept

    def compressed(self, body: bytes) -> bytes:
        """An answer's body in gzip."""
        found = self._compressed.get(id(body))
        if found is None or found[0] is not body:
            for old in list(self._compressed)[: 1 - MAX_KEPT]:
                self._compressed.pop(old, None)
            found = self._compressed[id(body)] = body, bytes(igzip.compress(body, 1))
        return found[1]

    def clear(self) -> None:
        """Forget all answers."""
        self._kept.clear()
