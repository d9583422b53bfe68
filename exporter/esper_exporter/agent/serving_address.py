"""The address that the server of a share writes down for the processes that it serves."""

from __future__ import annotations

import os
from pathlib import Path

from esper_exporter.agent.process_identity import is_locked
from esper_exporter.agent.share_directory import AGENT_LOCK

_LONGEST = 512


def write_address(lock: int, address: str | None) -> None:
    """Write the server's URL into the lock file that it holds open. Raises OSError."""
    text = (address or "").encode()[:_LONGEST]
    os.ftruncate(lock, 0)
    os.pwrite(lock, text, 0)


def serving_address(share: Path) -> str | None:
    """The URL of the agent or wrapper that serves the share now, None while none does."""
    path = share / AGENT_LOCK
    if not is_locked(path):
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.pread(handle, _LONGEST, 0).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(handle)
    known = text.startswith(("http://", "https://", "unix:")) and text.isprintable()
    return text if known else None
