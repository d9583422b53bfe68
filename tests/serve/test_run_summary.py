"""The summary of the runs names every lit latch, a head's or not."""

from __future__ import annotations

import math

from support.states import emitted, started, update


def test_a_latched_source_is_in_the_summary() -> None:
    exporter = emitted(started(), update(policy_loss=math.nan))
    (run,) = exporter.summaries()
    assert run.latches == ("loss",)


def test_a_run_without_a_fault_has_no_latches() -> None:
    (run,) = emitted(started(), update()).summaries()
    assert run.latches == ()
