"""The ActionHeads panel in a real browser, row by row against the tables of its document.

The expectations below are written from the document (colour, symbol, arrow, bar, word), not from
the code: no threshold is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from selenium import webdriver

from page.browser import Tab
from page.worlds import HEADS, heads_update, quiet
from support.states import started

GREEN, YELLOW, RED, DIM = (
    "rgb(70, 176, 140)",
    "rgb(235, 165, 43)",
    "rgb(255, 111, 85)",
    ("rgb(154, 164, 177)"),
)
BROWN = "rgb(185, 129, 79)"

# value → colour, flag, filled blocks of the bar (the share of five, cut off)
ENTROPY = [
    (1.0, GREEN, "", 5),
    (0.9999, GREEN, "", 4),
    (0.893, GREEN, "", 4),
    (0.75, GREEN, "", 3),
    (0.6, GREEN, "", 3),
    (0.51, GREEN, "", 2),
    (0.5001, GREEN, "", 2),
    (0.5, YELLOW, "L", 2),
    (0.4999, YELLOW, "L", 2),
    (0.443, YELLOW, "L", 2),
    (0.4, YELLOW, "L", 2),
    (0.3, YELLOW, "L", 1),
    (0.2501, YELLOW, "L", 1),
    (0.25, RED, "LL", 1),
    (0.215, RED, "LL", 1),
    (0.1, RED, "LL", 0),
    (0.043, RED, "LL", 0),
    (0.0, RED, "LL", 0),
]

# norm → colour, flag, filled blocks of the logarithmic bar
GRADIENT = [
    (0.0, RED, "LL", 0),
    (0.004, RED, "LL", 0),
    (0.0099, RED, "LL", 0),
    (0.01, YELLOW, "L", 1),
    (0.0101, YELLOW, "L", 1),
    (0.062, YELLOW, "L", 1),
    (0.0999, YELLOW, "L", 1),
    (0.1, GREEN, "", 2),
    (0.131, GREEN, "", 2),
    (0.213, GREEN, "", 3),
    (0.482, GREEN, "", 3),
    (0.744, GREEN, "", 4),
    (1.0, GREEN, "", 4),
    (2.0, GREEN, "", 4),
    (2.0001, YELLOW, "H", 4),
    (2.87, YELLOW, "H", 4),
    (5.0, YELLOW, "H", 4),
    (5.0001, RED, "HH", 5),
    (6.214, RED, "HH", 5),
    (100.0, RED, "HH", 5),
]

# previous norm, norm → arrow, colour of the arrow
TREND = [
    (1.0, 1.0, "flat", DIM),
    (1.0, 1.009, "flat", DIM),
    (1.009, 1.0, "flat", DIM),
    (1.0, 1.02, "up", DIM),
    (1.02, 1.0, "down", DIM),
    (0.5, 1.9, "up", DIM),
    (1.9, 0.5, "down", DIM),
    (0.02, 0.08, "up", GREEN),  # recovers
    (0.08, 0.02, "down", RED),  # goes on vanishing
    (0.5, 0.05, "down", RED),
    (0.05, 0.055, "flat", DIM),
    (2.5, 3.0, "up", RED),  # goes on growing
    (3.0, 2.5, "down", GREEN),  # calms down
    (9.0, 6.0, "down", GREEN),
    (6.0, 9.0, "up", RED),
    (2.5, 2.505, "flat", DIM),
]

# ratio → colour, flag, filled blocks (how far from 1, full at a half and at two)
RATIO = [
    (1.0, GREEN, "", 0),
    (1.023, GREEN, "", 0),
    (1.142, GREEN, "", 0),
    (1.2, GREEN, "", 1),
    (0.8, GREEN, "", 1),
    (0.891, GREEN, "", 0),
    (1.2001, YELLOW, "H", 1),
    (1.312, YELLOW, "H", 1),
    (1.5, YELLOW, "H", 2),
    (0.7999, YELLOW, "L", 1),
    (0.764, YELLOW, "L", 1),
    (0.5, YELLOW, "L", 4),
    (1.5001, RED, "HH", 2),
    (1.624, RED, "HH", 3),
    (2.1, RED, "HH", 5),
    (0.4999, RED, "LL", 4),
    (0.3, RED, "LL", 5),
]

# head, entropy, norm → symbol, word, colour; the first row of the table that fits
STATE = [
    ("op", 0.05, 0.005, "ring", "dead", RED),
    ("op", 0.0999, 0.0099, "ring", "dead", RED),
    ("slot", 0.05, 0.005, "ring", "dead", RED),
    ("op", 0.5, 5.01, "tri", "exploding", RED),
    ("op", 0.05, 9.0, "tri", "exploding", RED),
    ("style", 0.95, 9.0, "tri", "exploding", RED),
    ("slot", 0.05, 0.5, "dia", "collapsed", YELLOW),
    ("tempo", 0.05, 0.5, "dia", "collapsed", YELLOW),
    ("op", 0.0999, 0.01, "dia", "collapsed", YELLOW),
    ("op", 0.05, 5.0, "dia", "collapsed", YELLOW),
    ("blueprint", 0.91, 0.5, "half", "confused", YELLOW),
    ("op", 1.0, 0.1, "half", "confused", YELLOW),
    ("op", 1.0, 2.0, "half", "confused", YELLOW),
    ("op", 0.3, 0.5, "dot", "healthy", GREEN),
    ("op", 0.5, 0.5, "dot", "healthy", GREEN),
    ("op", 0.7, 0.5, "dot", "healthy", GREEN),
    ("op", 0.5, 0.1, "dot", "healthy", GREEN),
    ("op", 0.5, 2.0, "dot", "healthy", GREEN),
    ("op", 0.2, 0.5, "dot", "indeterminate", DIM),
    ("op", 0.8, 0.5, "dot", "indeterminate", DIM),
    ("op", 0.9, 0.5, "dot", "indeterminate", DIM),
    ("op", 0.5, 0.05, "dot", "indeterminate", DIM),
    ("op", 0.5, 3.0, "dot", "indeterminate", DIM),
    ("op", 1.0, 0.05, "dot", "indeterminate", DIM),
    ("op", 0.1, 0.005, "dot", "indeterminate", DIM),
]

# gradient_cv → colour, word; layers and counts → colour
CV = [
    (0.0, GREEN, "stable"),
    (0.4999, GREEN, "stable"),
    (0.5, YELLOW, "warn"),
    (1.22, YELLOW, "warn"),
    (1.9999, YELLOW, "warn"),
    (2.0, RED, "BAD"),
    (7.5, RED, "BAD"),
]
COUNTS = [
    ("dead", "dead_layers", 0, GREEN, "0/12", False),
    ("dead", "dead_layers", 1, RED, "1/12", False),
    ("exploding", "exploding_layers", 0, GREEN, "0/12", False),
    ("exploding", "exploding_layers", 12, RED, "12/12", False),
    ("nan", "nan_grad_count", 0, DIM, "0", False),
    ("nan", "nan_grad_count", 3, RED, "3", True),
    ("inf", "inf_grad_count", 0, DIM, "0", False),
    ("inf", "inf_grad_count", 2, RED, "2", True),
]

READ = """
const colour = (e) => e ? getComputedStyle(e).color : null;
const heads = {};
for (const td of document.querySelectorAll('.heads:not(.dec) [data-row]')) {
  const h = heads[td.dataset.head] ||= {};
  const seg = td.querySelector('.seg');
  if (seg) { h[td.dataset.row] = Number(seg.dataset.filled); continue; }
  if (['entropy', 'gradient', 'ratio'].includes(td.dataset.row)) {
    const v = td.querySelector(':scope > span:not(.co):not(.sf)');
    const trend = td.querySelector('.trend');
    h[td.dataset.row] = { text: v.innerText, colour: colour(v), flag: td.dataset.flag,
      label: td.getAttribute('aria-label'),
      trend: trend ? trend.dataset.trend : null, trendColour: colour(trend),
      prefix: (td.querySelector('.co') || {}).innerText || '' };
  } else {
    h[td.dataset.row] = { text: td.innerText.trim(), colour: colour(td), symbol: td.dataset.symbol,
      weight: getComputedStyle(td).fontWeight, set: td.dataset.set };
  }
}
const flow = {};
for (const part of document.querySelectorAll('[data-flow]')) {
  const b = part.querySelector('b');
  flow[part.dataset.flow] = { text: part.innerText.replace(/\\s+/g, ' '), value: b.innerText,
    colour: colour(b), weight: Number(getComputedStyle(b).fontWeight) };
}
return { heads, flow };
"""

CALM = {"entropy": 0.5, "grad_norm": 0.5, "ratio_max": 1.0}


@dataclass
class Panel:
    """A page that is shown one update after another."""

    tab: Tab
    number: int = 0
    seen: dict[Any, Any] | None = None

    def shown(self, heads: dict[str, dict[str, float | None]], **fields: Any) -> dict[str, Any]:
        """What the panel shows after an update with these heads."""
        self.number += 1
        answer = heads_update(float(self.number), **dict.fromkeys(HEADS, CALM) | heads)
        answer["data"] |= fields
        self.tab.exporter.emit(answer)
        self.tab.shows_update(self.number)
        found: dict[str, Any] = self.tab.run(READ)
        return found


@pytest.fixture(scope="module")
def panel(chromium: webdriver.Chrome) -> Iterator[Panel]:
    exporter = quiet()
    exporter.emit(started(slot_ids=["r0c0", "r0c1"]))
    exporter.start()
    tab = Tab(chromium, exporter)
    tab.look()
    tab.go()
    yield Panel(tab)
    tab.leave()
    exporter.close()


def _by_eight(panel: Panel, cases: list[Any], heads_of: Any) -> list[tuple[dict[str, Any], str]]:
    """Show the cases eight at a time, a head each, and return what was shown of each."""
    shown = []
    for start in range(0, len(cases), len(HEADS)):
        some = cases[start : start + len(HEADS)]
        placed = dict(zip(HEADS, some, strict=False))
        before = {h: heads_of(case)[0] for h, case in placed.items()}
        now = {h: heads_of(case)[1] for h, case in placed.items()}
        if any(before.values()):
            panel.shown(before)
        found = panel.shown(now)["heads"]
        shown += [(found[head], head) for head in placed]
    return shown


def test_entropy_has_the_documents_colours_flags_and_bars(panel: Panel) -> None:
    shown = _by_eight(panel, ENTROPY, lambda c: ({}, CALM | {"entropy": c[0]}))
    for (value, colour, flag, blocks), (cell, head) in zip(ENTROPY, shown, strict=True):
        answer = cell["entropy"]
        assert (answer["text"], answer["colour"], answer["flag"], cell["entropy-bar"]) == (
            f"{value:.3f}",
            colour,
            flag,
            blocks,
        ), (head, value)


def test_sparse_heads_have_their_coefficient_before_the_entropy(panel: Panel) -> None:
    found = panel.shown({})["heads"]
    shown = {head: cell["entropy"]["prefix"] for head, cell in found.items()}
    assert (
        shown.items()
        >= {
            "op": "",
            "slot": "",
            "blueprint": "1.3×",
            "style": "1.2×",
            "tempo": "1.3×",
            "alpha_target": "1.2×",
            "alpha_speed": "1.2×",
            "alpha_curve": "1.2×",
        }.items()
    )


def test_gradients_have_the_documents_colours_flags_and_bars(panel: Panel) -> None:
    shown = _by_eight(panel, GRADIENT, lambda c: ({}, CALM | {"grad_norm": c[0]}))
    for (value, colour, flag, blocks), (cell, head) in zip(GRADIENT, shown, strict=True):
        answer = cell["gradient"]
        text = f"{value:.1f}" if value >= 10 else f"{value:.3f}"
        assert (answer["text"], answer["colour"], answer["flag"], cell["gradient-bar"]) == (
            text,
            colour,
            flag,
            blocks,
        ), (head, value)


def test_trends_have_the_documents_arrows_and_colours(panel: Panel) -> None:
    shown = _by_eight(
        panel, TREND, lambda c: (CALM | {"grad_norm": c[0]}, CALM | {"grad_norm": c[1]})
    )
    for (before, now, arrow, colour), (cell, head) in zip(TREND, shown, strict=True):
        answer = cell["gradient"]
        assert (answer["trend"], answer["trendColour"]) == (arrow, colour), (head, before, now)


def test_ratios_have_the_documents_colours_flags_and_bars(panel: Panel) -> None:
    shown = _by_eight(panel, RATIO, lambda c: ({}, CALM | {"ratio_max": c[0]}))
    for (value, colour, flag, blocks), (cell, head) in zip(RATIO, shown, strict=True):
        answer = cell["ratio"]
        assert (answer["text"], answer["colour"], answer["flag"], cell["ratio-bar"]) == (
            f"{value:.3f}",
            colour,
            flag,
            blocks,
        ), (head, value)


def test_states_have_the_documents_symbols_words_and_colours(panel: Panel) -> None:
    waiting = list(STATE)
    while waiting:
        # As many at once as there are different heads among them.
        batch = {case[0]: case for case in reversed(waiting)}
        for case in batch.values():
            waiting.remove(case)
        found = panel.shown(
            {head: CALM | {"entropy": c[1], "grad_norm": c[2]} for head, c in batch.items()}
        )["heads"]
        for head, (_, entropy, norm, symbol, word, colour) in batch.items():
            answer = found[head]["state"]
            assert (answer["symbol"], answer["text"], answer["colour"]) == (symbol, word, colour), (
                head,
                entropy,
                norm,
            )
            assert (int(answer["weight"]) >= 600) == (word == "exploding")


@pytest.mark.parametrize(("cv", "colour", "word"), CV)
def test_the_coefficient_of_variation_has_its_word(
    panel: Panel, cv: float, colour: str, word: str
) -> None:
    flow = panel.shown({}, gradient_cv=cv)["flow"]["cv"]
    assert (flow["value"], flow["colour"]) == (f"{cv:.3f}", colour)
    assert flow["text"].endswith(word)


@pytest.mark.parametrize(("part", "field", "count", "colour", "text", "bold"), COUNTS)
def test_the_footer_counts(
    panel: Panel, part: str, field: str, count: int, colour: str, text: str, bold: bool
) -> None:
    flow = panel.shown({}, **{field: count})["flow"][part]
    assert (flow["value"], flow["colour"], flow["weight"] >= 600) == (text, colour, bold)


def test_what_was_not_measured_is_a_dash_without_level(panel: Panel) -> None:
    nothing = {"entropy": None, "grad_norm": None, "ratio_max": None}
    found = panel.shown(dict.fromkeys(HEADS, nothing))
    for cell in found["heads"].values():
        for row in ("entropy", "gradient", "ratio"):
            assert (cell[row]["text"], cell[row]["colour"], cell[row]["flag"]) == ("–", DIM, "")
            assert cell[f"{row}-bar"] == 0
        assert cell["state"]["text"] == "–"
    assert found["flow"]["dead"]["value"] == "–"


def test_what_is_no_number_is_a_word_in_red(panel: Panel) -> None:
    found = panel.shown(
        {"op": CALM | {"grad_norm": math.nan}, "style": CALM | {"ratio_max": math.inf}}
    )
    assert found["heads"]["op"]["gradient"]["text"] == "NaN"
    assert found["heads"]["op"]["gradient"]["colour"] == RED
    assert found["heads"]["style"]["ratio"]["text"] == "Inf"


def test_a_cell_is_read_aloud_with_its_flag_and_trend(panel: Panel) -> None:
    panel.shown({"blueprint": CALM | {"grad_norm": 5.5}})
    found = panel.shown({"blueprint": CALM | {"grad_norm": 6.214}})
    assert found["heads"]["blueprint"]["gradient"]["label"] == (
        "Blueprint gradient 6.214, critically high, rising"
    )


@pytest.mark.parametrize(("head", "kind"), [("op", "nan"), ("tempo", "nan"), ("style", "inf")])
def test_a_latch_lights_and_stays(panel: Panel, head: str, kind: str) -> None:
    before = panel.shown({})["heads"][head][kind]
    assert (before["symbol"], before["set"], before["weight"]) == ("ring", "false", "400")
    lit = panel.shown({}, **{f"head_{kind}_detected": {head: True}})["heads"][head][kind]
    assert (lit["symbol"], lit["set"], lit["colour"]) == ("dot", "true", RED)
    assert int(lit["weight"]) >= 600
    assert lit["text"] == f"latched u{panel.number}"
    assert panel.shown({})["heads"][head][kind] == lit


def test_a_slot_head_with_one_slot_is_expected_to_choose_nothing(
    chromium: webdriver.Chrome,
) -> None:
    exporter = quiet()
    exporter.emit(started(slot_ids=["r0c0"]))
    with exporter:
        tab = Tab(chromium, exporter)
        tab.look()
        tab.go()
        shown = Panel(tab).shown({"slot": CALM | {"entropy": 0.0}, "op": CALM | {"entropy": 0.0}})
        slot, op = shown["heads"]["slot"]["state"], shown["heads"]["op"]["state"]
        assert (slot["symbol"], slot["text"], slot["colour"]) == ("dia", "expected", DIM)
        assert (op["symbol"], op["text"], op["colour"]) == ("dia", "collapsed", YELLOW)
        tab.leave()


def test_the_oracle_has_at_least_120_cases() -> None:
    tables = (ENTROPY, GRADIENT, TREND, RATIO, STATE, CV, COUNTS)
    assert sum(map(len, tables)) + 8 + 3 * 2 >= 120
