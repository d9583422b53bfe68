"""The decision table: the carousel by a clock of the test's own, pips, heat bars, abbreviations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from page.browser import Tab
from page.worlds import decision, heads_update, quiet
from support.states import started

GREEN, YELLOW, RED = "rgb(70, 176, 140)", "rgb(235, 165, 43)", "rgb(255, 111, 85)"
BROWN, DIM = "rgb(185, 129, 79)", "rgb(154, 164, 177)"
CYAN, BLUE = "rgb(103, 191, 220)", "rgb(106, 165, 242)"

Show = Callable[..., Tab]

ROWS = """
return [...document.querySelectorAll('.dec tbody tr[data-decision]')].map((tr) => ({
  id: tr.dataset.decision, age: tr.querySelector('th').innerText.split(/\\s+/).pop(),
  pip: getComputedStyle(tr.querySelector('.pip')).color,
  disc: tr.querySelector('.pip use').getAttribute('href'),
  cells: Object.fromEntries([...tr.querySelectorAll('td[data-head]')].map((td) => [td.dataset.head,
    { text: td.innerText.trim(), colour: getComputedStyle(td).color,
      heat: td.querySelector('.seg') ? Number(td.querySelector('.seg').dataset.filled) : null }])),
}))
"""

PIPS = [
    (0.0, GREEN, "#dot"),
    (11.9, GREEN, "#dot"),
    (12.0, YELLOW, "#p3"),
    (20.9, YELLOW, "#p3"),
    (21.0, BROWN, "#p2"),
    (26.9, BROWN, "#p2"),
    (27.0, RED, "#p1"),
    (29.9, RED, "#p1"),
]

HEAT = [
    (-0.5, 0),
    (0.0, 0),
    (0.01, 1),
    (0.2499, 1),
    (0.25, 2),
    (0.4999, 2),
    (0.5, 3),
    (0.7499, 3),
    (0.75, 4),
    (0.9999, 4),
    (1.0, 5),
    (1.5, 5),
]

ACTIONS = [
    ("GERMINATE", "GERM", GREEN),
    ("SET_ALPHA_TARGET", "ALPH", CYAN),
    ("FOSSILIZE", "FOSS", BLUE),
    ("PRUNE", "PRUN", RED),
    ("WAIT", "WAIT", DIM),
    ("ADVANCE", "ADVN", CYAN),
]


def _table() -> Any:
    exporter = quiet()
    exporter.emit(started(slot_ids=["r0c0", "r0c1"]))
    exporter.emit(heads_update(0.5, op={"entropy": 0.5, "grad_norm": 0.5}))
    return exporter


def _await(tab: Tab, condition: str, *given: Any) -> list[dict[str, Any]]:
    tab.until(f"const rows = (() => {{ {ROWS} }})(); return {condition}", *given)
    rows: list[dict[str, Any]] = tab.run(ROWS)
    return rows


def test_the_carousel_takes_the_newest_every_five_seconds_and_ages_from_being_shown(
    show: Show,
) -> None:
    exporter = _table()
    exporter.emit(decision(1.0))
    tab = show(exporter, clock=True)
    rows = _await(tab, "rows.length === 1")
    assert (rows[0]["age"], rows[0]["pip"]) == ("0s", GREEN)
    # Two more within five seconds: nothing is swapped, nothing queues.
    exporter.emit(decision(2.0))
    exporter.emit(decision(3.0))
    tab.tick(4.0)
    rows = _await(tab, "rows[0].age === '4s'")
    assert [row["id"] for row in rows] == ["00000010"]
    tab.tick(1.0)
    rows = _await(tab, "rows.length === 2")
    # The newest is shown, the one between never is; its age begins at 0.
    assert [row["id"] for row in rows] == ["00000030", "00000010"]
    assert [row["age"] for row in rows] == ["0s", "5s"]
    for place in range(4, 9):
        exporter.emit(decision(float(place)))
        tab.tick(5.0)
        rows = _await(tab, f"rows[0].id === '{place * 10:08d}'")
    assert len(rows) == 6
    assert [row["age"] for row in rows] == ["0s", "5s", "10s", "15s", "20s", "25s"]
    assert [row["pip"] for row in rows] == [GREEN, GREEN, GREEN, YELLOW, YELLOW, BROWN]
    tab.tick(4.5)
    rows = _await(tab, "rows[5]?.age === '29s'")
    assert (rows[5]["pip"], rows[5]["disc"]) == (RED, "#p1")
    tab.tick(0.5)
    rows = _await(tab, "rows.length === 5")  # thirty seconds are a decision's life
    assert "00000030" not in [row["id"] for row in rows]


def test_no_decision_ages_while_the_page_is_paused(show: Show) -> None:
    exporter = _table()
    exporter.emit(decision(1.0))
    tab = show(exporter, clock=True)
    _await(tab, "rows.length === 1")
    tab.tick(3.0)
    _await(tab, "rows[0].age === '3s'")
    tab.press(" ")
    tab.until("return document.querySelector('.strip')?.innerText.includes('Paused')")
    tab.tick(40.0)
    _await(tab, "rows[0].age === '3s'")
    tab.press(" ")
    tab.tick(2.0)
    _await(tab, "rows[0].age === '5s'")


def test_a_run_that_ended_shows_its_last_decisions_and_ages_none(show: Show) -> None:
    exporter = _table()
    for place in range(1, 9):
        exporter.emit(decision(float(place), place % 2))
    tab = show(exporter)
    exporter.mark_ended(None)
    rows = _await(tab, "rows.length === 6")
    assert [row["age"] for row in rows] == ["–"] * 6
    assert rows[0]["id"].startswith("00000080")


def test_pips_by_age(show: Show) -> None:
    tab = show(_table())
    found = tab.call(
        """const { pip } = await import('./page/decisions.js');
        const limits = (await (await fetch('api/v1/state')).json()).limits.decisions;
        return given[0].map((age) => pip(age, limits));""",
        [age for age, _, _ in PIPS],
    )
    level = {GREEN: "ok", YELLOW: "warn", BROWN: "old", RED: "crit"}
    assert found == [[level[colour], disc.removeprefix("#")] for _, colour, disc in PIPS]


def test_heat_bars_by_confidence(show: Show) -> None:
    tab = show(_table())
    found = tab.call(
        "const { heat } = await import('./page/decisions.js'); return given[0].map(heat)",
        [confidence for confidence, _ in HEAT],
    )
    assert found == [blocks for _, blocks in HEAT]


@pytest.mark.parametrize(("op", "text", "colour"), ACTIONS)
def test_actions_have_their_abbreviation_and_colour(
    show: Show, op: str, text: str, colour: str
) -> None:
    exporter = _table()
    exporter.emit(decision(1.0, 0, op))
    (row,) = _await(show(exporter), "rows.length === 1")
    cell = row["cells"]["op"]
    assert (cell["text"], cell["colour"], cell["heat"]) == (text, colour, 3)


def test_choices_are_abbreviated_and_unused_ones_are_a_dash(show: Show) -> None:
    exporter = _table()
    exporter.emit(decision(1.0, 0, "GERMINATE", alpha_speed=None, alpha_curve=None))
    (row,) = _await(show(exporter), "rows.length === 1")
    assert {head: cell["text"] for head, cell in row["cells"].items()} == {
        "op": "GERM",
        "slot": "r0c1",
        "blueprint": "conv_lt",
        "style": "LIN_ADD",
        "tempo": "STD",
        "alpha_target": "70%",
        "alpha_speed": "-",
        "alpha_curve": "-",
    }
    assert row["cells"]["alpha_curve"]["colour"] == DIM


def test_waiting_chooses_nothing_else(show: Show) -> None:
    exporter = _table()
    exporter.emit(decision(1.0, 0, "WAIT"))
    (row,) = _await(show(exporter), "rows.length === 1")
    assert {cell["text"] for head, cell in row["cells"].items() if head != "op"} == {"-"}


def test_alternatives_open_on_demand(show: Show) -> None:
    exporter = _table()
    exporter.emit(decision(1.0))
    tab = show(exporter)
    _await(tab, "rows.length === 1")
    assert not tab.texts(".dec tr.alt")
    tab.press("a")
    tab.until("return document.querySelector('.dec tr.alt')")
    assert "WAIT 30.0" in tab.text(".dec tr.alt")
    tab.press("a")
    tab.until("return !document.querySelector('.dec tr.alt')")
