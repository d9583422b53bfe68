"""Hooks in any torch loop: gradient clipping and optimizer steps, by thread.

The hooks are process-wide while a listener is open, and pass everything through on threads that
have none.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)


class Listener(Protocol):
    """Observes the gradients of the loop on its thread. Its methods do not raise."""

    def clipping(self, parameters: Sequence[Tensor], max_norm: float, total: Tensor) -> None:
        """These parameters' gradients, whose norm is ``total``, are about to be clipped."""

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer is about to use the gradients; of a step with a closure, it has used them,
        and they are still there."""

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer has used the gradients."""


_here = threading.local()
_lock = threading.Lock()
_open = 0
_undo: list[Callable[[], None]] = []


def listen(listener: Listener) -> None:
    """Call ``listener`` for clippings and steps on this thread from now on."""
    _listeners().append(listener)
    hold()


def hold() -> None:
    """Keep the hooks installed until `let_go`, for frequent listening."""
    global _open
    with _lock:
        _open += 1
        if _open == 1:
            _install()


def let_go() -> None:
    """End a `hold`."""
    global _open
    with _lock:
        _open -= 1
        if _open == 0:
            while _undo:
                _undo.pop()()


def ignore(listener: Listener) -> None:
    """Stop calling it. Call this on the thread that it listens on."""
    try:
        _listeners().remove(listener)
    except ValueError:
        return
    let_go()


def _listeners() -> list[Listener]:
    found: list[Listener] | None = getattr(_here, "listeners", None)
    if found is None:
        found = _here.listeners = []
    return found


def _install() -> None:
    _undo.append(register_optimizer_step_pre_hook(_stepping).remove)
    _undo.append(register_optimizer_step_post_hook(_stepped).remove)
    clip_grad = importlib.import_module("torch.nn.utils.clip_grad")
    # Both `nn.utils.clip_grad_norm_` and a copy of it imported by name end up in this function.
    inner = "_clip_grads_with_norm_"
    if hasattr(clip_grad, inner):
        _replace(clip_grad, inner, _watch_scaling)
    else:
        _replace(torch.nn.utils, "clip_grad_norm_", _watch_clipping)


def _replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    wrapped = functools.wraps(original)(wrap(original))
    setattr(owner, name, wrapped)

    def undo() -> None:
        # Code that wrapped it after us still calls ours: it passes everything through.
        if getattr(owner, name) is wrapped:
            setattr(owner, name, original)

    _undo.append(undo)


def _watch_scaling(original: Any) -> Any:
    def clip_grads_with_norm_(
        parameters: Any, max_norm: float, total_norm: Tensor, *args: Any, **more: Any
    ) -> Any:
        for listener in tuple(_listeners()):
            given = [parameters] if isinstance(parameters, Tensor) else parameters
            listener.clipping(given, max_norm, total_norm)
        return original(parameters, max_norm, total_norm, *args, **more)

    return clip_grads_with_norm_


def _watch_clipping(original: Any) -> Any:
    def clip_grad_norm_(parameters: Any, max_norm: float, *args: Any, **more: Any) -> Any:
        listeners = tuple(_listeners())
        if not listeners:
            return original(parameters, max_norm, *args, **more)
        # A generator can be read once.
        given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        gradients = [p.grad for p in given if p.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        for listener in listeners:
            listener.clipping(given, max_norm, total)
        return original(given, max_norm, *args, **more)

    return clip_grad_norm_


def _computes(args: Any, kwargs: Any) -> bool:
    """Whether a step was given a closure: the gradients that it uses are computed, and clipped,
    inside it. Before it there are those of the step before, or some of those accumulated."""
    return any(map(callable, args[1:])) or callable(kwargs.get("closure"))


def _stepping(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    listeners = _listeners()
    if not listeners or _computes(args, kwargs):
        return
    for listener in tuple(listeners):
        listener.stepping(optimizer)


def _stepped(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    listeners = _listeners()
    if not listeners:
        return
    computed = _computes(args, kwargs)
    for listener in tuple(listeners):
        if computed:
            listener.stepping(optimizer)
        listener.stepped(optimizer)
