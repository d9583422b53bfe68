"""Every number of the snapshot and of the events is on the page, or is left out with a reason."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections import deque
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from esper_exporter.contract.event_table import TYPES, canonical
from esper_exporter.contract.fields import TextFloat
from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.metrics.unexported_fields import (
    classes_with_metrics,
    unexported_fields,
    unexported_of,
)
from esper_exporter.state.snapshot import SanctumSnapshot

NUMBERS = (int, float, bool, TextFloat)


def field_names(kind: type) -> list[str]:
    if issubclass(kind, msgspec.Struct):
        return list(kind.__struct_fields__)
    return [field.name for field in dataclasses.fields(kind)]


def inner_types(hint: Any) -> list[Any]:
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [t for arg in get_args(hint) for t in inner_types(arg)]
    return [hint]


def numeric_leaves(kind: type, path: str, seen: tuple[type, ...] = ()) -> dict[str, str]:
    """Path → ``Class.field`` of every number or flag below a class, without those left out."""
    found: dict[str, str] = {}
    if kind in seen:
        return found
    for field in field_names(kind):
        name = f"{path}.{field}" if path else field
        if field in unexported_of(kind):
            continue
        for hint in inner_types(get_type_hints(kind)[field]):
            args = get_args(hint)
            origin = get_origin(hint)
            values = [t for arg in args[-1:] for t in inner_types(arg)] if origin is dict else []
            if origin in (list, tuple, deque):
                values += inner_types(args[0])
            if hint in NUMBERS or any(v in NUMBERS for v in values):
                found[name] = f"{kind.__name__}.{field}"
            for nested in (hint, *values):
                if isinstance(nested, type) and (
                    dataclasses.is_dataclass(nested) or issubclass(nested, msgspec.Struct)
                ):
                    found |= numeric_leaves(nested, name, (*seen, kind))
    return found


def exported() -> set[str]:
    """The paths of all sources, without label braces and indices."""
    return {
        _flat(source)
        for metric in catalogue().metrics
        for source in metric.sources
        if "derived" not in source
    }


def _flat(source: str) -> str:
    source = re.sub(r"\[kind=[^\]]*\]", "", source)
    source = re.sub(r"\[[^\]]*\]", "", source)
    return source


def matches(path: str, sources: set[str]) -> bool:
    return any(
        re.fullmatch(re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(source)), path) for source in sources
    )


def test_every_number_of_the_snapshot_is_exported_or_left_out_with_a_reason() -> None:
    sources = exported()
    missing = [
        f"{path} ({own})"
        for path, own in numeric_leaves(SanctumSnapshot, "").items()
        if not matches(path, sources)
    ]
    assert missing == []


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_number_of_an_event_is_exported_or_left_out_with_a_reason(name: str) -> None:
    by_type: dict[str, str] = {}
    for source in exported():
        if source.startswith("event:"):
            kind, _, field = source.removeprefix("event:").partition(".")
            if canonical(kind) == name:
                by_type[field] = source
    missing = [
        f"event:{name}.{path} ({own})"
        for path, own in numeric_leaves(TYPES[name].payload, "").items()
        if not matches(path, set(by_type))
    ]
    assert missing == []


def test_the_fields_that_are_left_out_exist() -> None:
    unknown = {
        f"{kind.__name__}.{name}"
        for kind in classes_with_metrics()
        for name in set(unexported_of(kind)) - set(field_names(kind))
    }
    assert unknown == set()


@pytest.mark.parametrize("name", [None, *sorted(TYPES)])
def test_no_reason_is_given_for_a_field_that_is_exported(name: str | None) -> None:
    kind, path = (TYPES[name].payload, f"event:{name}.") if name else (SanctumSnapshot, "")
    shown = {source.removeprefix(path) for source in exported() if source.startswith(path)}
    assert set(unexported_of(kind)) & shown == set()


def test_the_metrics_that_the_reasons_name_exist() -> None:
    names = {metric.name for metric in catalogue().metrics}
    missing = {
        (path, name)
        for path, reason in unexported_fields()
        for name in re.findall(r"esper_[a-z0-9_]+[a-z0-9](?![a-z0-9_*])", reason)
        if name not in names
    }
    assert missing == set()


def test_every_metric_has_a_name_of_the_conventions() -> None:
    for metric in catalogue().metrics:
        assert re.fullmatch(
            r"(esper_(run|rank|tamiyo|tolaria|kasmina|simic|torch|gpu|host|exporter|agent)"
            r"|process|python_gc)_[a-z0-9_]+",
            metric.name,
        ), metric.name
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.help.endswith("."), metric.name
        assert metric.sources, metric.name
    names = [metric.name for metric in catalogue().metrics]
    assert len(names) == len(set(names))
