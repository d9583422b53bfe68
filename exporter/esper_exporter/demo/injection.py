"""Parse the request for a fault: ``KIND[:HEAD][@UPDATE[-LAST]][:full]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from esper_exporter.contract.vocabulary import HEADS

OF_A_HEAD = ("nan", "inf", "entropy-collapse")
OF_A_MINIBATCH = ("nan", "inf", "grad-explode", "grad-nan")
"""Kinds that hit the first minibatch of an update, or with ``:full`` all of them."""
KINDS = (*OF_A_HEAD, "grad-explode", "grad-nan", "crash", "oom", "stall")
USUAL_HEAD = "op"
USUAL_UPDATE = 10
FORM = "KIND[:HEAD][@UPDATE[-LAST]][:full]"

_FORM = re.compile(
    r"(?P<kind>[a-z-]+)(?::(?P<head>(?!full\b)\w+))?"
    r"(?:@(?P<first>\d+)(?:-(?P<last>\d+))?)?(?P<full>:full)?"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in each update from ``first`` to ``last``, counting from 1; ``head`` is empty for
    kinds without one."""

    kind: str
    head: str
    first: int
    last: int
    full: bool = False


def fault(text: str) -> Fault:
    """Parse a fault. Raises ValueError with a line for the user."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not of the form {FORM}")
    kind, head, full = match["kind"], match["head"], match["full"] is not None
    if kind not in KINDS:
        raise ValueError(f"unknown fault {kind!r}; known are {', '.join(KINDS)}")
    if head is not None and kind not in OF_A_HEAD:
        raise ValueError(f"{kind} takes no head")
    if head is not None and head not in HEADS:
        raise ValueError(f"unknown head {head!r}; known are {', '.join(HEADS)}")
    if full and kind not in OF_A_MINIBATCH:
        raise ValueError(f"{kind} does not hit a minibatch: it has no :full")
    first = int(match["first"] or USUAL_UPDATE)
    last = int(match["last"] or first)
    if first < 1:
        raise ValueError("updates count from 1")
    if last < first:
        raise ValueError(f"update {last} comes before {first}")
    return Fault(kind, (head or USUAL_HEAD) if kind in OF_A_HEAD else "", first, last, full)
