"""What a training thread works on: its batch, its policy update, its host batch."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch


class Context(threading.local):
    """By thread: nothing may assume that training happens on the main one."""

    key: tuple[str, int] | None = None
    """Group and batch (from 1) that the trainer is in."""
    update: Any = None
    host: Any = None
    epoch: dict[int, Any] | None = None


class Guard:
    """Runs a measurement: it neither raises into the trainer nor records gradients."""

    def __init__(self, failed: Callable[[], None]) -> None:
        self._failed = failed

    def __call__(self, look: Callable[..., Any]) -> Callable[..., Any]:
        """``look``, guarded; None where it failed."""

        @functools.wraps(look)
        def guarded(*args: Any, **more: Any) -> Any:
            try:
                with torch.no_grad():
                    return look(*args, **more)
            except Exception:
                self._failed()
                return None

        return guarded
