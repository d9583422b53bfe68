"""Reading at once and reading field by field: the same payload wherever the first gives one."""

from __future__ import annotations

import collections
import math
import os
import subprocess
import sys
import types
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, get_args, get_origin

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.border import live, now, recorded
from esper_exporter.contract.event_table import TYPES, canonical
from esper_exporter.contract.fast_path import read_at_once
from esper_exporter.contract.fields import (
    Count,
    EnvId,
    GradientState,
    Head,
    Label,
    Seed,
    Text,
    TextFloat,
    Whole,
)
from esper_exporter.contract.payload_schema import plan_of, read_fields
from esper_exporter.contract.reader import read, read_plainly
from esper_exporter.contract.rejection import Rejected
from esper_exporter.contract.vocabulary import HEADS


class Name(str):
    pass


class Member(StrEnum):
    TRAINING = "TRAINING"


class Whim(int):
    pass


class Share(float):
    pass


class Table(dict[str, Any]):
    pass


FLOATS = st.floats() | st.integers() | st.sampled_from([Decimal("1.5"), Share(2.0), True, "1.5"])
WHOLES = st.integers() | st.sampled_from([Whim(3), True, 2.0, 2.5, 2**63, 2**64, np.int64(4)])
FLAGS = st.booleans() | st.sampled_from([0, 1, np.bool_(True), 2, "true"])
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["x" * 256, "x" * 257, "x" * 5000, "\ud800", "é", Name("x"), Member.TRAINING, b"x"]
)
ODD = st.sampled_from(
    [None, {}, [], (), {1.0}, frozenset({"a"}), object(), 10**400, math.nan, "", 0, range(3)]
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values for a field: mostly what it is declared as, at times something else."""
    return st.one_of(_declared(hint), _declared(hint), _declared(hint), ODD)


def _declared(hint: Any) -> st.SearchStrategy[Any]:
    for kind, values in (
        *(
            (float, FLOATS),
            (TextFloat, FLOATS),
            (Whole, WHOLES),
            (Seed, WHOLES),
            (Count, WHOLES),
            (GradientState, TEXTS),
            (bool, FLAGS),
            (str, TEXTS),
        ),
        *((Text, TEXTS), (Label, TEXTS), (EnvId, st.integers(-1, 2_000_000))),
        (Head, st.sampled_from([*HEADS, "curve", "own", Name("op")])),
        (Any, st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2)),
    ):
        if hint == kind:
            return values
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return payloads(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is types.UnionType or type(None) in args:
        return st.one_of(*(_declared(arg) for arg in args if arg is not type(None)))
    if origin is dict:
        keys = st.one_of(_declared(args[0]), st.text(max_size=3)).filter(_hashable)
        found = st.dictionaries(keys, values_of(args[1]), max_size=3)
        return st.one_of(found, found.map(Table), found.map(collections.UserDict))
    inner = st.lists(values_of(args[0]), max_size=3)
    if args[-1] is not Ellipsis:
        return st.tuples(*(values_of(arg) for arg in args))
    return st.one_of(inner, inner.map(tuple))


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def payloads(kind: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    hints = {field.name: field for field in msgspec.structs.fields(kind)}
    needed = {name: _declared(f.type) for name, f in hints.items() if f.required}
    others = [name for name in hints if name not in needed]
    if not others:
        return st.fixed_dictionaries(needed)
    chosen = st.lists(st.sampled_from(others), max_size=4, unique=True)
    return chosen.flatmap(
        lambda names: st.fixed_dictionaries(
            needed | {name: values_of(hints[name].type) for name in names}
        )
    )


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


def compare(kind: type[msgspec.Struct], source: object) -> bool:
    """Whether the fast way took it; if so, both ways gave the same."""
    plan = plan_of(kind)
    fast = read_at_once(plan.payload, source)
    if fast is None:
        return False
    ignored: list[str] = []
    slow = read_fields(plan, source, ignored)
    assert same(fast, slow)
    assert ignored == []
    return True


@pytest.mark.parametrize("name", sorted(TYPES))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_both_ways_give_the_same_payload(name: str, data: st.DataObject) -> None:
    source = data.draw(payloads(TYPES[name].payload))
    compare(TYPES[name].payload, source)
    compare(TYPES[name].payload, types.SimpleNamespace(**source))


@pytest.mark.parametrize("name", sorted(recorded()))
@pytest.mark.parametrize("form", ["dict", "slots"])
def test_recorded_events_go_the_fast_way(name: str, form: str) -> None:
    event: Any = recorded()[name]
    kind = TYPES[canonical(event["event_type"])].payload
    source = event["data"] if form == "dict" else live(event, True).data  # type: ignore[attr-defined]
    untyped = "detail" in event["data"] or name == "ANALYTICS_SNAPSHOT:action_distribution"
    assert compare(kind, source) or untyped


@dataclass
class LiveEvent:
    """An envelope as the real system's, whose attributes are only stored."""

    event_type: Any
    timestamp: Any
    event_id: str
    group_id: str
    seed_id: str | None
    slot_id: str | None
    severity: str
    epoch: int | None
    message: str
    data: Any


@pytest.mark.parametrize("name", sorted(recorded()))
@pytest.mark.parametrize("form", ["dict", "live", "live without slots"])
def test_an_event_reads_the_same_plainly_and_with_care(name: str, form: str) -> None:
    event: Any = recorded()[name]
    if form != "dict":
        parts = live(event, form == "live")
        event = LiveEvent(**{each: getattr(parts, each) for each in LiveEvent.__annotations__})
    careful = read(event, now)
    plain = read_plainly(event)
    assert plain is None or same(plain, careful)
    untyped = name == "ANALYTICS_SNAPSHOT:action_distribution" or bool(careful.ignored)
    assert plain is not None or form == "live without slots" or untyped


class Loud(str):
    """A text that raises when it is compared, measured or hashed."""

    def _refuse(self, *_args: object) -> Any:
        raise AssertionError("called")

    __eq__ = __hash__ = __len__ = __bool__ = __str__ = _refuse  # type: ignore[assignment]


@pytest.mark.parametrize(
    "change",
    [
        {"event_id": Loud("x")},
        {"group_id": "\ud800"},
        {"slot_id": "s" * 257},
        {"epoch": True},
        {"epoch": 2**63},
        {"timestamp": datetime(1969, 1, 1, tzinfo=UTC)},
        {"timestamp": "yesterday"},
        {"timestamp": datetime(2026, 1, 1)},
        {"event_type": "NO_SUCH_EVENT"},
        {"event_type": Loud("EPOCH_COMPLETED")},
        {"data": None},
        {"data": []},
    ],
)
def test_what_is_not_plain_is_left_to_the_careful_way(change: dict[str, Any]) -> None:
    assert read_plainly(recorded()["EPOCH_COMPLETED"]) is not None
    assert read_plainly(recorded()["EPOCH_COMPLETED"] | change) is None


def test_what_the_fast_way_refuses_costs_only_its_field() -> None:
    event = recorded()["PPO_UPDATE_COMPLETED"]["data"] | {
        "lr": [],
        "clip_fraction": np.float32(0.5),
    }
    plan = plan_of(TYPES["TAMIYO_POLICY_UPDATE"].payload)
    assert read_at_once(plan.payload, event) is None
    ignored: list[str] = []
    found = read_fields(plan, event, ignored)
    assert (found.lr, found.clip_fraction, ignored) == (None, 0.5, ["lr"])


class Computed:
    """A class whose objects compute one of their fields."""

    env_id = 0
    val_accuracy = 1.0
    val_loss = 1.0
    inner_epoch = 1

    @property
    def train_loss(self) -> float:
        raise ValueError("no")


def test_an_attribute_that_raises_is_counted_and_not_taken_for_absent() -> None:
    plan = plan_of(TYPES["TOLARIA_EPOCH_COMPLETED"].payload)
    assert read_at_once(plan.payload, Computed()) is None
    ignored: list[str] = []
    assert read_fields(plan, Computed(), ignored).train_loss is None
    assert ignored == ["train_loss"]


def test_a_required_field_of_another_type_is_rejected_by_the_lenient_way() -> None:
    plan = plan_of(TYPES["TOLARIA_EPOCH_COMPLETED"].payload)
    source = {"env_id": 0, "val_accuracy": [], "val_loss": 1.0, "inner_epoch": 1}
    assert read_at_once(plan.payload, source) is None
    with pytest.raises(Rejected):
        read_fields(plan, source, [])


FIRST_EVENTS = """
import sys, threading
from datetime import UTC, datetime
sys.setswitchinterval(1e-6)
from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.reader import read
together = threading.Barrier(8)

class Live:
    __slots__ = ("env_id", "slot_id")
    def __init__(self):
        self.env_id, self.slot_id = 0, "r0c0"

def first_events():
    for name in TYPES:
        for data in ({"env_id": 0, "slot_id": "r0c0"}, Live()):
            together.wait()
            for _ in range(20):
                try:
                    read({"event_type": name, "data": data}, now)
                except Exception:
                    pass

now = lambda: datetime.now(UTC)
threads = [threading.Thread(target=first_events) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_read_their_first_events_at_once_do_not_crash() -> None:
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", FIRST_EVENTS],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("field", "keys", "fast"),
    [
        ("layer_gradient_health", ["body.0", "body.1"], True),
        ("layer_gradient_health", ["\ud800"], False),
        ("layer_gradient_health", ["körper"], False),
        ("layer_gradient_health", ["x" * 257], False),
        ("head_nan_detected", ["op", "own"], True),
        ("head_nan_detected", ["curve"], False),
    ],
)
def test_a_mapping_goes_the_fast_way_where_its_keys_stay_as_they_are(
    field: str, keys: list[str], fast: bool
) -> None:
    flags = field.startswith("head")
    source = recorded()["PPO_UPDATE_COMPLETED"]["data"] | {
        field: dict.fromkeys(keys, False if flags else 0.5)
    }
    assert compare(TYPES["TAMIYO_POLICY_UPDATE"].payload, source) is fast
