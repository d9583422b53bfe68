"""Choose the exposition format and compression from a client's request headers.

Pure functions over header values, by the rules of RFC 9110 §12.5: the highest weight wins, the
most specific range decides a format's weight, a weight of 0 forbids. They take any bytes and
never raise.

Where the rules leave a choice:

- Where nothing is acceptable, the client gets the Prometheus text format 0.0.4, as from
  Prometheus's client libraries: a page helps a scraper more than a 406.
- At equal weights a named format beats one that only a wildcard covers; then the first one wins.
- ``escaping`` is answered, not matched on. All built-in names are ASCII, so ``allow-utf-8`` and
  ``underscores`` give the same page; every other scheme is answered with ``underscores``, which
  describes the page (``dots`` would double the underscores of legal names). A client that does
  not send ``escaping`` gets none back; the 0.0.4 format never has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

Format = Literal["text", "openmetrics"]
Escaping = Literal["allow-utf-8", "underscores"]

# An unclosed quoted string extends to the end, so the regex never backtracks and a hostile header
# costs linear time.
_QUOTED = r'"(?:[^"\\]|\\.)*+\\?+(?:"|\Z)'
_LIST_ITEM = re.compile(rf'(?:{_QUOTED}|[^,"])+', re.DOTALL)
_PARAMETER = re.compile(rf'(?:{_QUOTED}|[^;"])+', re.DOTALL)
_MAX_RANGES = 64
_WEIGHT = re.compile(r"(?:0(?:\.[0-9]*)?|1(?:\.0*)?|\.[0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class MediaType:
    """An exposition format as sent in ``Content-Type``.

    ``escaping`` is the scheme that the client asked for, None where it asked for none. It matters
    only for user metrics: the built-in names are ASCII.
    """

    format: Format
    version: str
    escaping: Escaping | None = None

    @property
    def content_type(self) -> str:
        name = "text/plain" if self.format == "text" else "application/openmetrics-text"
        value = f"{name}; version={self.version}; charset=utf-8"
        return value if self.escaping is None else f"{value}; escaping={self.escaping}"


TEXT_0_0_4 = MediaType("text", "0.0.4")
TEXT_1_0_0 = MediaType("text", "1.0.0")
OPENMETRICS_1_0_0 = MediaType("openmetrics", "1.0.0")

OFFERS = (TEXT_0_0_4, TEXT_1_0_0, OPENMETRICS_1_0_0)
"""The available formats, the default first."""


@dataclass(frozen=True, slots=True)
class _Range:
    """One element of a weighted list: what it names, its parameters and its weight."""

    name: str
    parameters: dict[str, str]
    weight: float


def _text(header: bytes | str | None) -> str:
    if header is None:
        return ""
    return header if isinstance(header, str) else header.decode("latin-1")


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
    return value


def _ranges(header: str) -> Iterable[_Range]:
    """The well-formed elements, at most 64; one with an unreadable weight is skipped."""
    for item in islice(_LIST_ITEM.finditer(header), _MAX_RANGES):
        name, *rest = _PARAMETER.findall(item[0]) or [""]
        parameters: dict[str, str] = {}
        weight: float | None = 1.0
        for parameter in rest:
            key, _, value = parameter.partition("=")
            key, value = key.strip().lower(), _unquote(value.strip())
            if key == "q":
                weight = float(value) if _WEIGHT.fullmatch(value) else None
                break  # after a weight come extensions, not properties of the format
            if key:
                parameters.setdefault(key, value)
        if weight is not None and name.strip():
            yield _Range(name.strip().lower(), parameters, weight)


def _specificity(wanted: _Range, offer: MediaType) -> tuple[int, int] | None:
    """How specifically a media range matches an offer; None without a match.

    Parameters of other formats (``proto``, ``encoding``) are ignored: in practice they never occur
    with these two media types, and a refusal would not help the client.
    """
    kind, _, subtype = offer.content_type.partition(";")[0].partition("/")
    if wanted.name == f"{kind}/{subtype}":
        level = 2
    elif wanted.name == f"{kind}/*":
        level = 1
    elif wanted.name in {"*/*", "*"}:
        level = 0
    else:
        return None
    properties = {"version": offer.version, "charset": "utf-8"}
    named = wanted.parameters.keys() & properties.keys()
    if any(wanted.parameters[key].lower() != properties[key] for key in named):
        return None
    return level, len(named)


def _escaping(wanted: _Range, offer: MediaType) -> Escaping | None:
    asked = wanted.parameters.get("escaping")
    if asked is None or offer.version == "0.0.4":
        return None
    return "allow-utf-8" if asked.lower() == "allow-utf-8" else "underscores"


def negotiate(accept: bytes | str | None) -> MediaType:
    """The format for an ``Accept`` header (several headers joined by commas); never raises."""
    ranges = list(_ranges(_text(accept)))
    best: tuple[tuple[float, int, int], MediaType] | None = None
    for offer in OFFERS:
        matches = [
            (specificity, -position, wanted)
            for position, wanted in enumerate(ranges)
            if (specificity := _specificity(wanted, offer)) is not None
        ]
        if not matches:
            continue
        (level, _), position, wanted = max(matches, key=lambda match: match[:2])
        rank = (wanted.weight, level, position)
        if wanted.weight > 0 and (best is None or rank > best[0]):
            best = rank, replace(offer, escaping=_escaping(wanted, offer))
    return TEXT_0_0_4 if best is None else best[1]


def accepts_gzip(accept_encoding: bytes | str | None) -> bool:
    """Whether to compress, for an ``Accept-Encoding`` header; never raises.

    Without the header the answer is not compressed: RFC 9110 would allow it, but simple clients
    would not understand it. At equal weights gzip beats identity.
    """
    weights: dict[str, float] = {}
    for wanted in _ranges(_text(accept_encoding)):
        name = "gzip" if wanted.name == "x-gzip" else wanted.name
        weights[name] = max(weights.get(name, 0.0), wanted.weight)
    gzip = weights.get("gzip", weights.get("*", 0.0))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)
