"""What an event type is: its names, payload, how it is recognised, and who applies it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event.

    ``apply`` names the function that brings it into a run's state, as ``module.function`` below
    `esper_exporter.state`; the contract knows nothing of the state, so the state looks it up.
    """

    name: str
    payload: type[msgspec.Struct]
    apply: str
    aliases: tuple[str, ...] = ()
    """Older names; during a migration the same event is emitted under both."""
    identity: tuple[str, ...] = ()
    """Payload fields that recognise the same event under another of its names."""
    latest: str | None = None
    """What metrics call the payload of the last one. Where the run's state has no attribute of that
    name, it is kept in ``RunState.latest``."""
    payload_optional: bool = False
    group_unreliable: bool = False
    """The trainer emits it with group "default" whatever the run's group is."""
    begins_run: bool = False
    resumes_run: bool = False
    reports_faults: bool = False
    """Its latches are worth saving from an event that cannot be read whole."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that it comes under, the present one first."""
        return (self.name, *self.aliases)
