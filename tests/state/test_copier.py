"""Copying what was reported: everything but None, to the attribute that it belongs to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from esper_exporter.state.copier import copier, twin
from esper_exporter.state.rewards import RewardComponents


def test_all_that_was_reported_is_copied_and_nothing_else() -> None:
    copy = copier({"loss": "last_loss", "flag": "flag", "text": "text", "kept": "kept"})
    target = SimpleNamespace(last_loss=1.0, flag=True, text="old", kept="kept", other=1)
    copy(SimpleNamespace(loss=0.0, flag=False, text="", kept=None, other=2), target)
    assert vars(target) == {"last_loss": 0.0, "flag": False, "text": "", "kept": "kept", "other": 1}


@pytest.mark.parametrize("names", [{"a.b": "c"}, {"a": "b; c"}, {"": "a"}])
def test_what_is_no_name_is_refused(names: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="no names"):
        copier(names)


def test_a_twin_is_equal_and_changes_by_itself() -> None:
    components = RewardComponents(total=2.0, last_action="WAIT")
    other = twin(components)
    assert other == components
    other.total = 3.0
    assert components.total == 2.0
