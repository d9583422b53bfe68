"""Seams: the trainer's functions that are replaced, each checked first, all restored at the end.

A seam that this version of the trainer lacks costs the fields measured there, is logged once and
shows in ``esper_exporter_probe_seams{seam}``.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from esper_exporter.adapters.import_hook import when_imported

_log = logging.getLogger("esper_exporter")

Wrap = Callable[[Any], Any]
"""Makes the replacement from the original."""


@dataclass(frozen=True, slots=True)
class Seam:
    """One function of the trainer: where its name is looked up, and the parameters it must have."""

    name: str
    module: str
    path: str
    """``Class.method`` or ``function`` in the module."""
    takes: tuple[str, ...] = ()
    """Parameters that the measurement relies on."""


class Seams:
    """Replaces functions when their modules are imported, and puts the originals back."""

    def __init__(self, report: Callable[[str, bool], None]) -> None:
        self._report = report
        self._undo: list[Callable[[], None]] = []
        self._open = True

    def put(self, seam: Seam, wrap: Wrap) -> None:
        """Replace the seam's function as soon as its module has been imported."""
        self._undo.append(when_imported(seam.module, lambda module: self._put(seam, wrap, module)))

    def _put(self, seam: Seam, wrap: Wrap, module: ModuleType) -> None:
        if not self._open:
            return
        try:
            owner, name, original = _find(seam, module)
        except (AttributeError, LookupError, TypeError, ValueError) as problem:
            _log.warning(
                "seam %s: %s; what is measured there stays absent (%s.%s)",
                seam.name,
                problem,
                seam.module,
                seam.path,
            )
            self._report(seam.name, False)
            return
        replacement = functools.wraps(original)(wrap(original))
        inherited = name not in vars(owner)
        setattr(owner, name, replacement)

        def undo() -> None:
            # Code that wrapped it later still calls ours: it passes everything through then.
            if vars(owner).get(name) is not replacement:
                return
            if inherited:
                delattr(owner, name)
            else:
                setattr(owner, name, original)

        self._undo.append(undo)
        self._report(seam.name, True)

    @property
    def open(self) -> bool:
        """Whether the seams are in use: a replacement that outlives them passes through."""
        return self._open

    def close(self) -> None:
        """Put every original back."""
        self._open = False
        while self._undo:
            self._undo.pop()()


def _find(seam: Seam, module: ModuleType) -> tuple[Any, str, Any]:
    """Owner, name and function. Raises where they are not as the measurement needs them."""
    owner: Any = module
    *outer, name = seam.path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    if not callable(original):
        raise TypeError(f"{seam.path} is no function")
    known = inspect.signature(original).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return owner, name, original
    missing = [wanted for wanted in seam.takes if wanted not in known]
    if missing:
        raise LookupError(f"{seam.path} does not take {', '.join(missing)}")
    return owner, name, original
