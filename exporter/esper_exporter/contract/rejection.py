"""Why an event is refused at the border."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esper_exporter.contract.events import Event

MALFORMED = "malformed"
"""Not an event: no mapping and no object with an event type, or one that cannot be read."""

UNKNOWN_TYPE = "unknown_type"
"""An event, of a type that neither age of the contract knows."""

MISSING_FIELD = "missing_field"
"""A required field, or the whole payload, is absent or null."""

WRONG_TYPE = "wrong_type"
"""A required field holds something of another type."""

INVALID_VALUE = "invalid_value"
"""A value of the right type that cannot be: a negative env_id, a label of a megabyte."""

MALFORMED_JSON = "malformed_json"
"""A line that is no JSON object: garbage, bad UTF-8, too long."""

REENTERED = "reentered"
"""One of more than a thousand events that came in while an attribute of another was read."""

REASONS = (
    *(MALFORMED, UNKNOWN_TYPE, MISSING_FIELD, WRONG_TYPE, INVALID_VALUE, MALFORMED_JSON),
    REENTERED,
)


class Rejected(Exception):
    """An event that is not applied.

    ``reason`` is one of ``REASONS``; ``detail`` names the field and types, never a value, so that
    the number of different details is small. ``event_name`` is the name as received, where one
    could be read, cut at 256 characters. ``event`` is what could be salvaged from an event that
    reports a fault: its payload has only the readable fields set, all others (required ones
    too) are None; it is there to set latches and must not be read as an update.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        event_name: str | None = None,
        event: Event | None = None,
    ) -> None:
        super().__init__(f"{event_name or 'event'}: {reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.event_name = event_name
        self.event = event
