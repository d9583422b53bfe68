"""The landing page shows every lit latch, a head's or not."""

from __future__ import annotations

import math

from esper_exporter.serve.page.landing_html import landing_html
from support.states import emitted, started, update


def test_a_latched_source_is_on_the_landing_page() -> None:
    exporter = emitted(started(), update(policy_loss=math.nan))
    (run,) = exporter.landing().runs
    assert run.latches == ("loss",)
    assert b'<span class="bad">loss</span>' in landing_html(exporter.landing())


def test_a_run_without_a_fault_has_no_latches() -> None:
    (run,) = emitted(started(), update()).landing().runs
    assert run.latches == ()
    assert run.policy_updates == 1
