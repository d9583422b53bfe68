"""Fields of the snapshot and of the events that no metric shows, each with the reason."""

from __future__ import annotations

UNEXPORTED: dict[str, str] = {}
