"""What a person sees: one live line on a terminal, a line an update elsewhere."""

from __future__ import annotations

import io

import pytest

from esper_exporter.demo.display import Display
from esper_exporter.demo.training import Batch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def batch(number: int, carried_out: bool = True) -> Batch:
    return Batch(number, 1.234, 61.23, 0.815, carried_out, 2.04)


def shown(written: str) -> list[str]:
    """What a terminal shows in the end, line by line."""
    lines = [""]
    for part in written.replace("\r\x1b[K", "\0").replace("\n", "\n\1").split("\1"):
        if lines[-1].endswith("\n"):
            lines.append("")
        lines[-1] += part
    return [line.rstrip("\n").split("\0")[-1] for line in lines]


def test_elsewhere_every_update_is_a_line() -> None:
    stream = io.StringIO()
    display = Display(stream)
    display.say("hello")
    display.update(batch(1), [])
    display.update(batch(2, carried_out=False), ["op NaN"])
    display.close()
    assert stream.getvalue().splitlines() == [
        "hello",
        "update 1 · return 1.23 · entropy 0.81 · no latches · accuracy 61.2 % · 2.0 s",
        "update 2: latched: op NaN",
        "update 2 · return 1.23 · skipped · latched: op NaN · accuracy 61.2 % · 2.0 s",
    ]


def test_on_a_terminal_one_line_lives_and_what_is_new_stays_above_it() -> None:
    stream = Terminal()
    display = Display(stream)
    display.say("hello")
    for number in range(1, 5):
        display.update(batch(number), ["op NaN"] if number >= 3 else [])
    display.close()
    lines = shown(stream.getvalue())
    assert lines[0] == "hello"
    assert lines[1] == "update 3: latched: op NaN"
    assert lines[2].startswith("update 4 · return 1.23 · entropy 0.81 · latched: op NaN")
    assert lines[3:] == [""]


def test_a_live_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    Display(stream).update(batch(1), ["op NaN", "alpha_curve Inf", "slot NaN"])
    assert len(shown(stream.getvalue())[-1]) == 39


def test_a_training_survives_a_closed_output() -> None:
    stream = io.StringIO()
    display = Display(stream)
    stream.close()
    display.say("hello")
    display.update(batch(1), [])
    display.close()
