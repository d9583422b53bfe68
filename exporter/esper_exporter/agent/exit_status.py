"""How a process ended, as its wrapper or the agent records it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from esper_exporter.agent.owned_file import PageRefused, open_owned

DIED = "died"
"""A process that vanished without a reason or a wrapper's record: most likely killed."""

_MAX_RECORD = 65_536


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended, from its wait status.

    ``reason`` is a value of ``esper_run_failed{reason}`` or empty for a good end, ``signal`` the
    signal's number or 0, ``exit_code`` the code that a shell would show (128 + signal for one that
    a signal ended), ``at`` Unix seconds.
    """

    reason: str
    signal: int
    exit_code: int
    at: float

    def to_json(self) -> bytes:
        """One JSON object."""
        return orjson.dumps(asdict(self))


def read_exit(path: Path, owners: frozenset[int]) -> Exit | None:
    """A wrapper's or agent's record; None without a usable one."""
    try:
        handle = open_owned(path, owners, _MAX_RECORD)
    except (OSError, PageRefused):
        return None
    with open(handle, "rb") as file:
        data = file.read(_MAX_RECORD)
    try:
        raw: Any = orjson.loads(data)
        values = {field.name: raw[field.name] for field in fields(Exit)}
        found = Exit(**values)
        if not isinstance(found.reason, str) or len(found.reason) > 32:
            return None
        return Exit(found.reason, int(found.signal), int(found.exit_code), float(found.at))
    except (ValueError, TypeError, KeyError):
        return None
