"""Objects whose locks must be whole in a forked child: notified before and after each fork."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What happens to an object when its process forks."""

    def before_fork(self) -> None:
        """Wait until no change is under way."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin with new locks: no thread of the parent is here to release what it holds."""


_FOLLOWED: weakref.WeakSet[Forked] = weakref.WeakSet()


def follow_forks(forked: Forked) -> None:
    """From now on, call the object's methods at each fork, as long as it lives."""
    _FOLLOWED.add(forked)


def _before_fork() -> None:
    for forked in list(_FOLLOWED):
        forked.before_fork()


def _after_fork_in_parent() -> None:
    for forked in list(_FOLLOWED):
        forked.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for forked in list(_FOLLOWED):
        forked.after_fork_in_child()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
