"""Values of live objects at once: what each lookup by name gives, without calling their code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest

from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.fast_path import read_at_once
from esper_exporter.contract.stored_values import getter_of

WANTED = ("loss", "norm", "absent", "count")


class Slots:
    __slots__ = ("__weakref__", "count", "loss", "norm", "other")

    def __init__(self) -> None:
        self.other, self.norm, self.loss, self.count = "o", 2.0, 1.0, 3


class Heir(Slots):
    """Has slots in two classes, one of them a second time."""

    __slots__ = ("another", "norm")

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.another = 2.0, None


class Closing(Slots):
    """Counts how often an object of it went away."""

    __slots__ = ()
    closed = 0

    def __del__(self) -> None:
        Closing.closed += 1


class Abstract(ABC):
    __slots__ = ("count", "loss", "norm")

    @abstractmethod
    def describe(self) -> str: ...


class Concrete(Abstract):
    __slots__ = ()

    def __init__(self) -> None:
        self.loss, self.norm, self.count = 1.0, 2.0, 3

    def describe(self) -> str:
        return ""


class WithDict:
    def __init__(self) -> None:
        self.loss, self.norm, self.count = 1.0, 2.0, 3


class Guarded(Slots):
    """Refuses to be made and changed in any way but its own."""

    __slots__ = ()

    def __new__(cls) -> Guarded:
        made = object.__new__(cls)
        made.__init__()  # type: ignore[misc]
        return made

    def __setattr__(self, name: str, value: object) -> None:
        if type(value) is object:
            raise AssertionError("called")
        object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Frozen:
    count: int = 3
    norm: float = 2.0
    loss: float = 1.0


@pytest.mark.parametrize("kind", [Slots, Heir, Closing, Concrete, WithDict, Guarded, Frozen])
def test_every_stored_value_is_at_its_place(kind: type) -> None:
    get = getter_of(kind, WANTED)
    assert get is not None
    assert [*get(kind())] == [1.0, 2.0, None, 3]
    assert [*get(kind())] == [1.0, 2.0, None, 3]


def test_no_object_of_a_class_that_does_something_at_its_end_is_made_for_a_trial() -> None:
    before = Closing.closed
    getter_of(Closing, WANTED)
    assert Closing.closed == before


@pytest.mark.parametrize("kind", [Slots, Concrete, Closing])
def test_a_slot_that_was_never_filled_raises(kind: Any) -> None:
    get = getter_of(kind, WANTED)
    assert get is not None
    partial = kind()
    del partial.norm
    with pytest.raises((TypeError, AttributeError)):
        get(partial)


def test_equal_values_in_many_slots_stay_apart() -> None:
    names = [f"f{number}" for number in range(40)]
    kind = make_dataclass("Many", names, slots=True)
    get = getter_of(kind, names[::-1])
    assert get is not None
    values = [None, 0.0, 1, True, "", None] * 6 + [None] * 4
    assert [*get(kind(*values))] == values[::-1]


class Computes:
    __slots__ = ("loss", "norm")

    @property
    def count(self) -> int:
        raise AssertionError("called")


class Looks:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError("called")


@pytest.mark.parametrize("kind", [Computes, Looks, int, str, dict, type])
def test_a_class_whose_code_would_be_called_has_no_getter(kind: type) -> None:
    assert getter_of(kind, WANTED) is None


class Hashed(str):
    """A text that counts how often it was hashed."""

    hashed = 0

    def __hash__(self) -> int:
        Hashed.hashed += 1
        return str.__hash__(self)


@pytest.mark.parametrize("field", ["layer_gradient_health", "head_nan_detected"])
def test_the_keys_of_a_mapping_are_not_hashed_by_code_of_their_own(field: str) -> None:
    payload = TYPES["TAMIYO_POLICY_UPDATE"].payload
    source = {field: {Hashed("op"): 1.0}}
    before = Hashed.hashed
    assert read_at_once(payload, source) is None
    assert Hashed.hashed == before
