"""The syntax of --inject on the command line."""

from __future__ import annotations

import pytest

from esper_exporter.demo.injection import Fault, fault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nan:op@30", Fault("nan", "op", 30, 30)),
        ("inf:slot@40:full", Fault("inf", "slot", 40, 40, True)),
        ("nan", Fault("nan", "op", 10, 10)),
        ("nan:full", Fault("nan", "op", 10, 10, True)),
        ("nan:alpha_curve:full", Fault("nan", "alpha_curve", 10, 10, True)),
        ("grad-explode@50", Fault("grad-explode", "", 50, 50)),
        ("grad-nan@60:full", Fault("grad-nan", "", 60, 60, True)),
        ("entropy-collapse:style@70", Fault("entropy-collapse", "style", 70, 70)),
        ("crash@80", Fault("crash", "", 80, 80)),
        ("oom", Fault("oom", "", 10, 10)),
        ("nan:op@5-7:full", Fault("nan", "op", 5, 7, True)),
        ("grad-explode@5-9", Fault("grad-explode", "", 5, 9)),
        ("stall@100", Fault("stall", "", 100, 100)),
    ],
)
def test_a_requested_fault_is_parsed(text: str, expected: Fault) -> None:
    assert fault(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not of the form"),
        ("nan:op@", "is not of the form"),
        ("nan:op@3:half", "is not of the form"),
        ("nam:op@3", "unknown fault 'nam'; known are nan, inf"),
        ("nan:curve@3", "unknown head 'curve'; known are slot"),
        ("crash:op@3", "crash takes no head"),
        ("oom@3:full", "has no :full"),
        ("entropy-collapse:op@3:full", "has no :full"),
        ("nan@0", "updates count from 1"),
        ("nan@7-5", "update 5 comes before 7"),
        ("nan@7-", "is not of the form"),
    ],
)
def test_an_invalid_fault_is_reported(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        fault(text)
