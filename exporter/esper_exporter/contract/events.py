"""The envelope of an event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

DEFAULT_GROUP = "default"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event as the rest of the program knows it.

    ``name`` is the name it came with, ``type`` its canonical name. ``data`` is the payload of that
    type, or None where it may come without. ``ignored`` names the optional fields whose value made
    no sense and was left out.
    """

    name: str
    type: str
    timestamp: datetime
    event_id: str | None
    group_id: str
    seed_id: str | None
    slot_id: str | None
    epoch: int | None
    message: str
    severity: str
    data: Any
    ignored: tuple[str, ...] = ()
