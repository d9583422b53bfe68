"""What a reader must not take for something else: names, greys, tags, and what has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from selenium import webdriver

from demo.small import one_thread
from esper_exporter.demo.faults import Faults
from esper_exporter.demo.injection import fault
from esper_exporter.demo.stream import Stream
from esper_exporter.demo.training import Options, Training
from esper_exporter.replay.player import marks_of
from page.browser import Tab
from page.worlds import HEADS, heads_update, own_heads, quiet, recorded
from support.recordings import telemetry_lines
from support.states import event, started, update

Show = Callable[..., Tab]

HEALTH = {
    "dark": {"rgb(70, 176, 140)", "rgb(235, 165, 43)", "rgb(103, 191, 220)", "rgb(106, 165, 242)"},
    "light": {"rgb(0, 121, 90)", "rgb(143, 95, 0)", "rgb(0, 110, 143)", "rgb(0, 90, 156)"},
}
"""The tokens ok, warn, cyan and blue."""


@pytest.mark.parametrize(
    ("scheme", "chosen"),
    [("dark", "by the system"), ("light", "by the system"), ("light", "by key")],
)
def test_an_ended_run_is_grey_in_both_themes(show: Show, scheme: str, chosen: str) -> None:
    other = {"dark": "light", "light": "dark"}[scheme]
    tab = show(recorded("run2b"), scheme=scheme if chosen == "by the system" else other)
    if chosen == "by key":
        tab.press("t")
        tab.until("return document.documentElement.classList.contains(arguments[0])", scheme)
    for view in ("", "#/policy", "#/envs", "#/envs?env=0", "#/system"):
        tab.go(view)
        seen = tab.run(
            "return [...document.querySelectorAll('#app main *, #app .drawer *')].filter((e) =>"
            " !e.closest('.word, .reason, .latches')).map((e) => getComputedStyle(e).color)"
        )
        assert not HEALTH[scheme] & set(seen), view
    crit = {"dark": "rgb(255, 111, 85)", "light": "rgb(194, 59, 0)"}[scheme]
    tab.go("")
    for fact in (".latches .set", ".heads .alarm", ".tag.fault", ".word"):
        assert tab.run(f"return getComputedStyle(document.querySelector('{fact}')).color") == crit


def test_the_footer_says_that_it_counts_layers_and_gradients_not_heads(show: Show) -> None:
    tab = show(recorded("run2b"))
    assert "exploding" in tab.texts(".heads td[data-row=state]")
    footer = " ".join(tab.text(".flow").split())
    assert "Dead 0/12 Exploding 0/12 layers" in footer
    assert footer.startswith("Network layers, update 4 CV ")
    assert "NaN 0 Inf 0 gradients" in footer
    titles = tab.run("return [...document.querySelectorAll('.flow [title]')].map((e) => e.title)")
    assert [title.split(";")[0] for title in titles] == [
        "layers of the network",
        "parameter gradients of the last update that completed",
    ]


def test_the_entropy_line_says_which_entropy_it_is(show: Show) -> None:
    tab = show(recorded("run1", 6000))
    names = tab.texts(".pol .pn")
    assert "Entropy\nΣ weighted, ≤ 9.4" in names
    assert "weight" in tab.run(
        "return [...document.querySelectorAll('.pn')].find((e) =>"
        " e.innerText.startsWith('Entropy')).title"
    )


def test_of_own_heads_the_greatest_entropy_is_not_claimed(show: Show) -> None:
    tab = show(own_heads())
    assert "Entropy\nas reported" in tab.texts(".pol .pn")


FAULTS = {
    "two neighbours": [3, 4],
    "three of six": [3, 5, 6],
    "the first and the last": [1, 40],
    "many": list(range(2, 41, 2)),
    "every one": list(range(1, 41)),
}


@pytest.mark.parametrize("width", [400, 1440])
def test_tags_of_marked_updates_never_collide(show: Show, width: int) -> None:
    for name, at in FAULTS.items():
        exporter = quiet()
        exporter.emit(started(max_batches=100))
        for number in range(1, 41):
            latched = {"head_nan_detected": {"alpha_target": True}} if number in at else {}
            exporter.emit(update(float(number), **latched))
            if number in (3, 20):
                rollback = {"env_id": 1, "device": "cpu", "reason": "divergence"}
                exporter.emit(event("TOLARIA_ROLLBACK", rollback, number + 0.5))
        tab = show(exporter, width=width, height=1000)
        tab.until("return document.querySelector('.tag')")
        boxes = tab.run(
            "return [...document.querySelectorAll('.tag')].map((e) => {"
            " const b = e.getBoundingClientRect(); return [b.left, b.right, e.innerText]; })"
        )
        assert boxes[0][2][0] in "▾↺"
        for (_, right, one), (left, _, other) in pairwise(boxes):
            assert right <= left + 1, (name, one, other)
        edge = tab.run("return document.querySelector('.p-policy').getBoundingClientRect().right")
        assert max(right for _, right, _ in boxes) <= edge, name


def test_a_number_that_changed_is_underlined_and_no_other(show: Show) -> None:
    exporter = quiet()
    exporter.emit(started())
    calm = {head: {"entropy": 0.5, "grad_norm": 0.5, "ratio_max": 1.0} for head in HEADS}
    exporter.emit(heads_update(1.0, **calm))
    tab = show(exporter)
    tab.shows_update(1)
    changed = (
        "return [...document.querySelectorAll('.heads td.v')].filter((e) =>"
        " e.querySelector('[class*=chg]')).map((e) => e.dataset.head + ' ' + e.dataset.row)"
    )
    assert tab.run(changed) == []
    for number, norm in ((2, 0.7), (3, 0.9)):
        exporter.emit(
            heads_update(float(number), **calm | {"op": calm["op"] | {"grad_norm": norm}})
        )
        tab.shows_update(number)
        assert tab.run(changed) == ["op gradient"]
        name = "getComputedStyle(document.querySelector('[class*=chg]')).animationName"
        assert tab.run(f"return {name}") == f"changed{(number - 1) % 2}"


def test_without_motion_a_changed_number_is_bold_until_the_next_answer(show: Show) -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(heads_update(1.0, op={"entropy": 0.5, "grad_norm": 0.5}))
    tab = show(exporter, motion="reduce")
    tab.shows_update(1)
    exporter.emit(heads_update(2.0, op={"entropy": 0.5, "grad_norm": 0.6}))
    tab.shows_update(2)
    cell = "document.querySelector('td[data-head=op][data-row=gradient] > span')"
    assert tab.run(f"return getComputedStyle({cell}).fontWeight") == "650"
    exporter.emit(heads_update(3.0, op={"entropy": 0.5, "grad_norm": 0.6}))
    tab.shows_update(3)
    assert tab.run(f"return getComputedStyle({cell}).fontWeight") == "480"


@pytest.mark.parametrize("width", [400, 1440])
def test_a_head_shows_its_last_twenty_updates_at_the_pointer_and_the_focus(
    show: Show, width: int
) -> None:
    exporter = quiet()
    exporter.emit(started(max_batches=100))
    for number in range(1, 26):
        values = {"entropy": 0.5, "grad_norm": 0.1 * number, "ratio_max": 1.0}
        exporter.emit(heads_update(float(number), **dict.fromkeys(HEADS, values)))
    tab = show(exporter, width=width, height=1000)
    tab.shows_update(25)
    cell = 'document.querySelector(\'td[data-head="{}"][data-row="{}"]\')'
    for head in HEADS:
        for what in ("entropy", "gradient", "ratio"):
            tab.run(f"{cell.format(head, what)}.focus()")
            tab.until("return document.querySelector('.card')?.dataset.card === arguments[0]",
                      f"{head}/{what}")  # fmt: skip
            box = tab.run(
                "const b = document.querySelector('.card').getBoundingClientRect();"
                "const p = arguments[0] ? new DOMRect(0, 0, innerWidth, innerHeight)"
                " : document.querySelector('.p-heads').getBoundingClientRect();"
                "return [b.left - p.left, p.right - b.right, b.top - p.top, p.bottom - b.bottom]",
                width <= 640,  # at the foot of a phone's screen, else in the panel
            )
            assert min(box) >= 0, (head, what, box)
    tab.run(f"{cell.format('op', 'gradient')}.focus()")
    tab.until("return document.querySelector('.card')?.dataset.card === 'op/gradient'")
    reported = tab.text(".card")
    assert "update 6" in reported and "25" in reported
    assert "0.600 to 2.500" in reported and "exploding above 5" in reported
    label = tab.run("return document.querySelector('.trail').getAttribute('aria-label')")
    assert label.startswith("Op gradient, last 20 updates: first 0.600, last 2.500")
    tab.press("\ue00c")  # Escape
    tab.until("return !document.querySelector('.card')")
    assert tab.complaints() == []


def test_all_reasons_can_be_opened(show: Show) -> None:
    tab = show(own_heads())
    tab.until("return document.querySelectorAll('.reason').length === 6")
    tab.run("document.querySelector('.why button').click()")
    tab.until("return document.querySelectorAll('.reason').length === 7")


def test_a_phone_says_how_many_warnings_it_holds_back(show: Show) -> None:
    tab = show(own_heads(), width=400, height=900)
    tab.until("return document.querySelectorAll('.reason').length === 3")
    assert tab.text(".why button") == "+4 warnings"
    tab.run("document.querySelector('.why button').click()")
    tab.until("return document.querySelectorAll('.reason').length === 7")
    assert all(tab.texts(".reason"))
    assert tab.text(".why button") == "fewer"


def test_a_phone_says_that_a_run_has_finished(show: Show) -> None:
    tab = show(recorded("run1"), width=400, height=900)
    tab.until("return document.querySelector('.live').dataset.state === 'finished'")
    assert tab.text(".live") == "finished"
    assert tab.run("return document.documentElement.scrollWidth") <= 400


def test_a_value_between_two_gaps_is_a_dot_that_is_seen(show: Show) -> None:
    tab = show(recorded("run2b"))
    dot = "document.querySelector('[data-line=policy_loss] .pt')"
    tab.until(f"return {dot}")
    assert tab.run(f"return getComputedStyle({dot}).strokeWidth") == "5px"
    tab.press("2")
    tab.until("return document.querySelectorAll('.plot canvas').length === 9")
    alone = tab.run("return [...document.querySelectorAll('.plot')].map((e) => e.dataset.alone)")
    assert alone == ["", *["4"] * 8]


def test_the_values_of_an_update_before_a_skipped_one_are_not_shown_as_its_own(show: Show) -> None:
    lines = telemetry_lines("run2b")
    third, fourth, fifth = [mark.line for mark in marks_of(lines) if mark.kind == "update"][2:5]
    exporter = recorded("run2b", third)
    tab = show(exporter)
    note = "document.querySelector('.p-heads .note').innerText"
    green = (
        "return [...document.querySelectorAll('.heads:not(.dec) td, .heads:not(.dec) td *,"
        " .flow *, .pv:not([data-policy=return]) *')].filter((e) => !e.closest('.alarm'))"
        ".some((e) => arguments[0].includes(getComputedStyle(e).color))"
    )
    live = [*HEALTH["dark"], "rgb(255, 111, 85)"]
    tab.until(f"return {note}.startsWith('values of update 2; update 3 skipped: non-finite, ')")
    assert not tab.run(green, live)
    for line in lines[third:fourth]:
        exporter.emit_line(line)
    tab.until(f"return {note}.startsWith('update 4, ')")
    tab.until(green, live)
    for line in lines[fourth:fifth]:
        exporter.emit_line(line)
    tab.until(f"return {note}.startsWith('values of update 4; update 5 skipped: non-finite, ')")
    assert not tab.run(green, live)
    assert tab.text(".heads .alarm").startswith("latched")
    assert tab.run("return getComputedStyle(document.querySelector('.alarm')).color") == live[-1]


@pytest.fixture
def small_training(chromium: webdriver.Chrome) -> Iterator[tuple[Tab, Iterator[object]]]:
    """The demo's training with faults, and a tab on it, batch by batch."""
    exporter = quiet(run_id="demo")
    faults = Faults([fault("nan:op@2"), fault("grad-explode@4")], lambda: None)
    options = Options(seed=1, envs=2, slots=2, epochs=4, updates=6)
    with one_thread(), exporter:
        tab = Tab(chromium, exporter)
        tab.look()
        tab.go()
        yield tab, iter(Training(options, Stream(exporter, None, False), faults).batches())
        tab.leave()


def test_the_demo_s_faults_are_seen_as_they_happen(
    small_training: tuple[Tab, Iterator[object]],
) -> None:
    tab, batches = small_training
    next(batches)
    tab.until("return document.querySelector('.live b').innerText === 'running'")
    assert tab.text(".latches .sum").split("\n")[1] == "none set"
    next(batches)
    tab.until("return document.querySelector('[data-latch=op] .set')")
    tab.until("return document.querySelector('.word b').innerText === 'Broken'")
    assert "Op made NaN at update 2: latched" in " ".join(tab.texts(".reason"))
    tab.until("return document.querySelector('.tag.fault')?.innerText.includes('▾ 2')")
    next(batches)
    next(batches)
    tab.until("return document.querySelector('.heads').innerText.includes('exploding')")
    assert "non-finite" in tab.texts(".log .crit")
    for _ in batches:
        pass
    tab.until("return document.querySelector('.strip')?.innerText.includes('This run ended')")
    assert tab.run("return document.documentElement.classList.contains('gone')")
    assert tab.text("[data-latch=op] .set").startswith("NaN u2")
    assert (tab.complaints(), tab.foreign()) == ([], [])
