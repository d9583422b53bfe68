"""Whatever is handed in, reading it returns an event or raises Rejected, and soon."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.border import like, now, recorded, update
from esper_exporter.contract.jsonlines import parse_line
from esper_exporter.contract.reader import read
from esper_exporter.contract.rejection import REASONS, Rejected

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from([10**400, -(10**400), "x" * 5000, "\ud800"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
fuzzing = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)


def survives(reported: object) -> None:
    try:
        event = read(reported, now)
    except Rejected as refused:
        assert refused.reason in REASONS
    else:
        assert event.timestamp.tzinfo is not None
        assert event.group_id


@fuzzing
@given(values)
def test_arbitrary_json_is_read_or_refused(reported: Any) -> None:
    survives(reported)


@fuzzing
@given(st.data())
def test_a_mutated_real_event_is_read_or_refused(data: st.DataObject) -> None:
    event = like(data.draw(st.sampled_from(sorted(recorded()))))
    for part in (event["data"], event):
        for field in data.draw(st.lists(st.sampled_from(sorted(part)), max_size=4)):
            part[field] = data.draw(values)
    survives(event)


@fuzzing
@given(st.binary(max_size=200) | st.text(max_size=200) | values.map(json.dumps))
def test_an_arbitrary_line_is_parsed_or_refused(line: bytes | str) -> None:
    try:
        assert type(parse_line(line)) is dict
    except Rejected as refused:
        assert refused.reason == "malformed_json"


class Raises:
    """Raises at every touch."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class RaisingMapping(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


class Endless:
    """Has every attribute, each like itself."""

    def __getattr__(self, name: str) -> Any:
        return self


recursive: dict[str, Any] = {}
recursive["data"] = recursive["event_type"] = recursive

# By name: the test runner looks at its parameters, and these do not like it.
HOSTILE: dict[str, Any] = {
    "raising": Raises(),
    "raising mapping": RaisingMapping(),
    "endless": Endless(),
    "recursive": recursive,
    "class": Raises,
    "function": lambda: None,
}


@pytest.mark.parametrize("which", HOSTILE)
def test_a_hostile_object_is_refused(which: str) -> None:
    with pytest.raises(Rejected):
        read(HOSTILE[which], now)


@pytest.mark.parametrize("which", HOSTILE)
@pytest.mark.parametrize("field", ["op_q_values", "head_nan_detected", "value_mean", "grad_norm"])
def test_a_hostile_value_is_ignored_or_refused(field: str, which: str) -> None:
    survives(update(**{field: HOSTILE[which]}))
    survives(like("PPO_UPDATE_COMPLETED", {"data": HOSTILE[which]}))
