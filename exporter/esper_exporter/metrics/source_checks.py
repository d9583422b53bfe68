"""Checks that a metric's sources exist: a path that leads nowhere is an error when the catalogue
is compiled, not a metric that is silently absent."""

from __future__ import annotations

import re
import types
import typing
from collections import deque
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from esper_exporter.contract.event_table import BY_NAME
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.metrics.metric import Metric
from esper_exporter.state.snapshot import SanctumSnapshot

_EXAMPLES = {"{head}": HEADS[0], "{kind}": "nan"}
_TOKEN = re.compile(r"\.?([A-Za-z_]\w*)|(\[[^\]]*\])")
_KIND = re.compile(r"\[kind=\w+\]")


class SourceError(ValueError):
    """A metric's source leads nowhere; the message names both."""


def check_sources(metric: Metric, filled: bool) -> None:
    """Raise SourceError unless each of the metric's sources exists.

    ``filled`` says that the value comes from the sources alone: a derived one has to be read then.
    """
    if not metric.sources:
        raise SourceError(f"{metric.name} has no source")
    for source in metric.sources:
        if source.startswith("derived:"):
            continue
        if not _resolves(source):
            raise SourceError(f"{metric.name}: there is no {source}")
    if filled and metric.read is None and metric.sources[0].startswith("derived:"):
        raise SourceError(f"{metric.name} is derived, and nothing reads it")


def _resolves(source: str) -> bool:
    if source.startswith("event:"):
        name, _, path = _KIND.sub("", source.removeprefix("event:")).partition(".")
        event = BY_NAME.get(name)
        start: Any = None if event is None else event.payload
    else:
        start, path = SanctumSnapshot, source
    for marker, example in _EXAMPLES.items():
        path = re.sub(rf"(?<!\[){re.escape(marker)}", example, path)
    place = 0
    while place < len(path):
        token = _TOKEN.match(path, place)
        if token is None or start is None:
            return False
        place = token.end()
        start = _items(start) if token[2] else _field(start, token[1])
    return bool(path) and start is not None


def _field(kind: Any, name: str) -> Any:
    if not isinstance(kind, type):
        return None
    if name in _hints(kind):
        return _plain(_hints(kind)[name])
    found = getattr(kind, name, None)
    return _plain(get_type_hints(found.fget)["return"]) if isinstance(found, property) else None


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _items(kind: Any) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin is dict:
        return _plain(args[1])
    return _plain(args[0]) if origin in (list, tuple, deque) else None


def _plain(hint: Any) -> Any:
    """A type hint without None and annotations."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in (typing.Union, types.UnionType):
        return _plain(next(each for each in get_args(hint) if each is not types.NoneType))
    return hint
