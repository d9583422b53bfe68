"""Who serves a share, and where: a node agent, or a training's wrapper until an agent comes.

An agent locks a share's claim from its start on, and the share once it serves it. A wrapper locks
only the share, and stops serving when it finds it claimed: an agent that starts late, beside a
training that began meanwhile, is not turned away.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from esper_exporter.agent.process_identity import is_locked
from esper_exporter.agent.share_directory import AGENT_CLAIM, AGENT_LOCK, make_share

_LONGEST = 512


def lock_shares(shares: Sequence[Path], name: str) -> list[int]:
    """Open and lock a file in each of some shares, which are made where they are missing.

    Returns the open files; the locks last until they are closed. Raises BlockingIOError where
    another process holds one, OSError, and PageRefused for a share that others may write to.
    """
    locks: list[int] = []
    try:
        for share in shares:
            make_share(share)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            locks.append(os.open(share / name, flags, 0o600))
            fcntl.flock(locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        release(locks)
        raise
    return locks


def release(locks: list[int]) -> None:
    """Close these files, and with them their locks."""
    while locks:
        os.close(locks.pop())


def is_claimed(share: Path) -> bool:
    """Whether an agent serves the share, or waits for a wrapper to hand it over."""
    return is_locked(share / AGENT_CLAIM)


def is_served(share: Path) -> bool:
    """Whether an agent or a wrapper serves the share, or is about to."""
    return is_locked(share / AGENT_LOCK) or is_claimed(share)


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
