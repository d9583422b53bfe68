"""Generated events, most of them mangled: nothing raises, good ones count, pages parse strictly."""

from __future__ import annotations

import pytest
from benchmarks.fuzz import run


@pytest.mark.parametrize("seed", [1, 2])
def test_mangled_events_cost_only_themselves(seed: int) -> None:
    outcome = run(3000, seed)
    assert outcome.raised == []
    assert outcome.unparsed == []
    assert (outcome.counted, outcome.internal_errors) == (outcome.good, 0)
