"""The page as a person meets it: every part with data and without, on every screen, alone."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from esper_exporter import Exporter
from page.browser import Tab, slack
from page.worlds import (
    HEADS,
    decision,
    epoch,
    heads_update,
    hostile,
    own_heads,
    quiet,
    recorded,
    two_groups,
    wide,
)
from support.states import NOON, event, started, update

Show = Callable[..., Tab]

VIEWS = ("", "#/policy", "#/envs", "#/events", "#/system", "#/config", "#/envs?env=0")

WORLDS: dict[str, Callable[[], Exporter]] = {
    "nothing": quiet,
    "run1": lambda: recorded("run1", 6000),
    "run2b": lambda: recorded("run2b"),
    "own heads": own_heads,
    "two groups": two_groups,
    "64 × 9": lambda: wide(epochs=30),
    "markup": hostile,
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())
def test_every_view_of_every_run_loads_nothing_foreign_and_breaks_no_rule(
    show: Show, world: Callable[[], Exporter]
) -> None:
    tab = show(world())
    for view in (*VIEWS, "#/runs"):
        tab.go(view)
        time.sleep(0.1)
    assert tab.foreign() == []
    assert tab.complaints() == []
    assert not tab.run("return document.querySelector('[style]') !== null")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_fits_from_a_phone_to_a_wall(show: Show, scheme: str) -> None:
    tab = show(recorded("run1", 6000), scheme=scheme)
    for width in (400, 640, 800, 900, 1100, 1280, 1440, 1920, 2500):
        tab.look(width=width, scheme=scheme)
        tab.go()
        assert tab.run("return document.documentElement.scrollWidth") <= width
        smallest = tab.run(
            "return Math.min(...[...document.querySelectorAll('#app *')].filter((e) =>"
            " e.offsetParent && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))"
            ".map((e) => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert smallest >= 10, width
        background = tab.run("return getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(11, 13, 16)" if scheme == "dark" else "rgb(244, 245, 247)")


def test_on_a_phone_a_head_is_a_row(show: Show) -> None:
    tab = show(recorded("run2b"), width=400, height=900)
    assert len(tab.texts(".heads.phone tbody tr")) == 8
    assert tab.run("return document.querySelectorAll('.bottom a').length") == 6
    assert tab.run("return document.querySelector('.bottom a').offsetHeight") >= 44


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_has_contrast_enough(show: Show, scheme: str) -> None:
    tab = show(recorded("run1", 6000), scheme=scheme)
    worst = tab.run(
        """
        const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map((v) => v / 255)
          .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const behind = (e) => { for (; e; e = e.parentElement) {
          const c = getComputedStyle(e).backgroundColor;
          if (!/, 0\\)|transparent/.test(c) && !/0\\.\\d+\\)$/.test(c)) return c; }
          return getComputedStyle(document.body).backgroundColor; };
        let worst = [99, ''];
        for (const e of document.querySelectorAll('#app *')) {
          if (!e.offsetParent || e.closest('.faint, svg, :disabled')) continue;
          if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
          const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
          const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 120)];
        }
        return worst;
        """
    )
    assert worst[0] >= 4.5, worst[1]


def test_nothing_yet_is_dashes_and_says_what_to_type(show: Show) -> None:
    tab = show(quiet())
    assert tab.text(".word b") == "Waiting"
    assert "esper-exporter watch" in tab.text(".why")
    assert set(tab.texts(".heads:not(.dec) td.v")) <= {"–", "1.3×–", "1.2×–", "1.3× –", "1.2× –"}
    assert tab.text(".p-envs p") == "They appear with the run's first event."
    assert tab.text(".live b") == "waiting"


def test_the_first_event_replaces_the_waiting_within_two_seconds(show: Show) -> None:
    tab = show(quiet())
    begun = time.monotonic()
    tab.exporter.emit(started())
    tab.until("return document.querySelector('.live b').innerText === 'running'")
    assert time.monotonic() - begun < 2.0 * slack()


def test_a_latch_is_on_screen_within_two_seconds_and_said_aloud(show: Show) -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(heads_update(1.0, **{head: {"entropy": 0.5, "grad_norm": 0.5} for head in HEADS}))
    tab = show(exporter)
    tab.shows_update(1)
    begun = time.monotonic()
    exporter.emit(update(2.0, head_nan_detected={"tempo": True}))
    tab.until("return document.querySelector('.latches li.on')")
    assert time.monotonic() - begun < 2.0 * slack()
    assert "NaN u2 ×1" in tab.text(".latches li.on")
    assert tab.text(".word b") == "Broken"
    spoken = tab.run("return document.querySelector('[role=alert].sr').textContent")
    assert spoken == "Tempo made NaN at update 2: latched"


def test_a_reason_leads_to_its_part_and_to_its_runbook(show: Show) -> None:
    tab = show(recorded("run2b"))
    assert tab.text(".word b") == "Failed"
    tab.run("document.querySelector('.reason a').click()")
    tab.until("return document.activeElement.id === 'part-events'")
    runbook = tab.run("return document.querySelector('.reason .rb').href")
    parts = urlsplit(runbook)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", parts.path)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (200, "text/plain; charset=utf-8")
    assert b"EsperRunFailed" in answer.read()


def test_a_run_that_ended_says_so_and_greys_all_but_its_faults(show: Show) -> None:
    tab = show(recorded("run2b"))
    assert "This run failed" in tab.text(".strip")
    assert tab.run("return document.title").startswith("failed")
    grey = tab.run(
        "return [...document.querySelectorAll('.heads .v > span:not(.sf), .flow b, .pv span')]"
        ".map((e) => getComputedStyle(e).color)"
    )
    assert not {"rgb(70, 176, 140)", "rgb(235, 165, 43)", "rgb(255, 111, 85)"} & set(grey)
    latch = tab.run("return getComputedStyle(document.querySelector('.latches .set')).color")
    assert latch == "rgb(255, 111, 85)"
    assert tab.run("return document.querySelector('.pulse') === null")


def test_an_exporter_that_is_gone_is_said_and_greyed(show: Show) -> None:
    tab = show(recorded("run1", 6000))
    tab.exporter.close()
    tab.until("return document.querySelector('.strip')?.innerText.includes('No contact since')")
    assert tab.text(".word b") == "No contact"
    assert tab.text(".live b") == "no contact"
    assert tab.run("return document.documentElement.classList.contains('gone')")
    assert tab.run("return document.title").startswith("no contact")
    tab.complaints()  # refused connections are what this is about


def test_the_policy_has_lines_where_the_exporter_is_gone_before_its_plots_were_loaded(
    show: Show,
) -> None:
    tab = show(recorded("run1", 6000))
    tab.driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    tab.exporter.close()
    tab.until("return document.querySelector('.strip')?.innerText.includes('No contact since')")
    tab.press("2")
    tab.until("return document.querySelectorAll('.plot .ln').length >= 9")
    tab.complaints()


def test_a_run_whose_trainer_gave_up_says_that_and_not_how_its_process_ended(show: Show) -> None:
    tab = show(recorded("run2b"))
    assert "failed gave up: non-finite" in tab.text(".live")
    assert tab.texts(".reason")[0].startswith("trainer gave up: non-finite updates")


def test_two_groups_stand_side_by_side_and_can_be_chosen(show: Show) -> None:
    tab = show(two_groups(), "#/runs")
    assert [row.split()[2] for row in tab.texts(".ranks tbody th")] == ["shaped", "sparse"]
    assert "A/B: shaped leads sparse by 3.00 return" in tab.text(".runs h2")
    assert len(tab.texts(".mini-heads .lit, .ranks tr.bad")) >= 1
    tab.run("document.querySelectorAll('.ranks tbody tr')[0].click()")
    tab.until("return location.hash.includes('run=') && document.querySelector('.p-heads')")
    tab.until("return document.getElementById('pick-group')?.value === 'shaped'")
    assert tab.text(".latches .sum").split("\n")[1] == "none set"


def test_own_heads_get_the_same_grid_by_eight(show: Show) -> None:
    tab = show(own_heads())
    assert [len(row.split()) for row in tab.texts(".heads:not(.dec) thead tr")] == [9, 4]
    assert "joint_10" in tab.texts(".heads:not(.dec) thead th")
    states = tab.run(
        "return [...document.querySelectorAll('.heads:not(.dec) td[data-row=state]')]"
        ".map((e) => e.innerText.trim())"
    )
    assert len(states) == 11
    assert states[0] == "collapsed" and states[10] == "exploding"


def test_sixty_four_environments_of_nine_slots_open_one_by_one(show: Show) -> None:
    tab = show(wide(epochs=40), "#/envs")
    assert len(tab.texts(".tile")) == 64
    assert {
        len(row)
        for row in [
            tab.run(
                "return [...document.querySelector('.tile .sl').children].map((e) => e.tagName)"
            )
        ]
    } == {9}
    assert tab.run("return document.querySelector('.tile .sl').classList.contains('c3')")
    tab.run("document.querySelector('.tile[data-env=\"17\"]').click()")
    tab.until("return document.querySelector('.drawer .sd tbody tr')")
    assert tab.text(".dh .n") == "env 17"
    assert len(tab.texts(".drawer .sd tbody tr")) == 9
    tab.press("j")
    tab.until("return document.querySelector('.dh .n').innerText === 'env 18'")
    tab.press("kk")
    tab.until("return document.querySelector('.dh .n').innerText === 'env 16'")
    tab.press("\ue00c")  # Escape
    tab.until("return !document.querySelector('.drawer')")


@pytest.mark.parametrize("width", [1280, 1440, 1920])
def test_the_drawer_covers_nothing(show: Show, width: int) -> None:
    tab = show(recorded("run1", 6000), "#/?env=0", width=width)
    tab.until("return document.querySelector('.drawer .hist li')")
    covered = tab.run(
        "const edge = document.querySelector('.drawer').getBoundingClientRect().left;"
        "return [...document.querySelectorAll('main .panel, main .verdict > *')]"
        ".filter((e) => e.getBoundingClientRect().right > edge).map((e) => e.className)"
    )
    assert covered == []


def test_the_drawer_has_seeds_parts_matrix_shapley_actions_and_the_best_run(show: Show) -> None:
    tab = show(recorded("run1", 6000), "#/?env=0")
    tab.until("return document.querySelector('.drawer .hist li')")
    headings = " ".join(tab.texts(".drawer h3"))
    for part in ("Seeds", "Reward parts", "Counterfactual", "Shapley", "Actions", "Best run"):
        assert part in headings
    assert len(tab.texts(".drawer .rw tr")) >= 2
    assert tab.run("return document.querySelectorAll('.drawer .cf .d svg').length") > 0
    tab.run("[...document.querySelectorAll('.drawer h3 button')].pop().click()")
    tab.until("return document.querySelector('.drawer .record')")
    assert "At its peak" in tab.text(".drawer .record p")


def test_policy_lines_have_a_gap_where_an_update_was_skipped_and_a_mark_through_all(
    show: Show,
) -> None:
    tab = show(recorded("run2b"))
    path = tab.run("return document.querySelector('[data-line=policy_loss] .ln').getAttribute('d')")
    assert path.count("M") == 2
    marks = tab.run("return document.querySelectorAll('.line .flt').length")
    assert marks == 3 * 9
    assert tab.texts(".tag.fault")[0].startswith("▾ 3")
    tab.press("f")
    tab.until("return document.querySelector('.line .cursor')")
    tab.until("return document.querySelector('.log .at')")


def test_a_rollback_is_marked_on_every_line(show: Show) -> None:
    exporter = quiet()
    exporter.emit(started())
    for number in range(1, 5):
        exporter.emit(update(float(number)))
        if number == 2:
            rollback = {"env_id": 1, "device": "cpu", "reason": "divergence"}
            exporter.emit(event("TOLARIA_ROLLBACK", rollback, number + 0.5))
    tab = show(exporter)
    assert tab.run("return document.querySelectorAll('.line .rbk').length") == 9
    assert "rollback" in tab.texts(".log .crit")


def test_the_policy_in_full_draws_all_lines(show: Show) -> None:
    tab = show(recorded("run1"), "#/policy")
    tab.until("return document.querySelectorAll('.plot canvas').length === 9")
    assert tab.complaints() == []
    assert tab.foreign() == []


@pytest.mark.parametrize("width", [400, 1280, 1440])
def test_the_plots_in_full_end_within_their_panels(show: Show, width: int) -> None:
    tab = show(recorded("run2b"), "#/policy", width=width)
    tab.until("return document.querySelectorAll('.plot canvas').length === 9")
    beyond = tab.run(
        "return [...document.querySelectorAll('.plot')].map((e) =>"
        " e.querySelector('canvas').getBoundingClientRect().right"
        " - e.getBoundingClientRect().right)"
    )
    assert max(beyond) <= 0
    inner = tab.run(
        "return [...document.querySelectorAll('.plot')].map((e) =>"
        " e.closest('.panel').getBoundingClientRect().right"
        " - e.querySelector('.uplot').getBoundingClientRect().right)"
    )
    assert min(inner) >= 8


def test_what_was_reported_as_nan_is_marked_and_what_was_not_measured_is_not(show: Show) -> None:
    tab = show(recorded("run1"))
    tab.until("return document.querySelector('[data-line=explained_variance]')")
    crosses = (
        "return [...document.querySelectorAll('[data-line] [data-nonfinite]')].map((e) =>"
        " e.closest('[data-line]').dataset.line + ' ' + e.querySelector('title').textContent)"
    )
    assert tab.run(crosses) == [
        f"explained_variance NaN at update {number}" for number in (2, 3, 4, 6, 11)
    ]
    label = "return document.querySelector('[data-line=explained_variance]').ariaLabel"
    assert tab.run(label).endswith("5 not finite")
    tab.press("2")
    tab.until("return document.querySelectorAll('.plot canvas').length === 9")
    assert tab.run(
        "return [...document.querySelectorAll('.plot')].map((e) => e.dataset.nonfinite)"
        ".filter(Boolean)"
    ) == ["2 NaN, 3 NaN, 4 NaN, 6 NaN, 11 NaN"]
    tab.exporter.close()
    skipped = show(recorded("run2b"))
    skipped.until("return document.querySelector('[data-line=policy_loss]')")
    assert skipped.run(crosses) == []


@pytest.mark.parametrize(("value", "word"), [("NaN", "NaN"), ("Infinity", "Inf")])
def test_a_line_of_nothing_but_what_is_not_finite_is_not_called_unmeasured(
    show: Show, value: str, word: str
) -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(update(1.0, value_loss=float(value)))
    tab = show(exporter)
    line = "document.querySelector('[data-line=value_loss]')"
    tab.until(f"return {line}")
    assert tab.run(f"return {line}.ariaLabel") == "Value loss: no finite value, 1 not finite"
    assert tab.run(f"return {line}.textContent") == f"{word} at update 1"
    assert tab.run(f"return {line}.querySelector('.nonfinite.crit') !== null")


def test_a_run_that_finished_shows_its_environments_as_their_last_episode_ended(
    show: Show,
) -> None:
    exporter = quiet()
    exporter.emit(started(n_envs=2, slot_ids=["r0c0"], max_batches=2))
    seed = {"stage": "TRAINING", "blueprint_id": "conv_light", "epochs_in_stage": 2, "alpha": 0.5}
    statuses = (
        "return [...document.querySelectorAll('.envs td [data-status]')]"
        ".map((e) => e.dataset.status)"
    )
    tab = None
    for batch in (1, 2):
        for env in (0, 1):
            exporter.emit(epoch(env, 1, 40.0 + batch, {"r0c0": seed}, 10.0 * batch + env))
        end = {
            "episodes_completed": 2 * batch,
            "batch_idx": batch,
            "avg_accuracy": 41.0,
            "avg_reward": 1.0,
            "total_episodes": 4,
            "n_envs": 2,
        }
        exporter.emit(event("TOLARIA_BATCH_COMPLETED", end, 10.0 * batch + 2))
        if batch == 1:
            tab = show(exporter)
            tab.until(f"{statuses}.length === 2")
            assert tab.run(statuses) == ["initializing"] * 2  # the next episode is expected
    assert tab is not None
    tab.until("return document.querySelector('.live').dataset.state === 'finished'")
    assert [row.split()[:4] for row in tab.texts(".envs .acc")] == [
        ["42.0", "%", "best", "42.0"]
    ] * 2
    assert "initializing" not in tab.run(statuses)
    assert "conv_light" in tab.text(".envs td.slot")
    tab.go("#/?env=1")
    tab.until("return document.querySelector('.drawer')?.innerText.includes('42.0')")


VIOLET, BLUE, RED = "rgb(216, 147, 189)", "rgb(106, 165, 242)", "rgb(255, 111, 85)"

NEW_NAMES = {
    "TAMIYO_POLICY_UPDATE": VIOLET,
    "TOLARIA_EPOCH_COMPLETED": BLUE,
    "TOLARIA_BATCH_COMPLETED": BLUE,
    "TOLARIA_ROLLBACK": RED,
}
OLD_NAMES = {
    "PPO_UPDATE_COMPLETED": VIOLET,
    "EPOCH_COMPLETED": BLUE,
    "BATCH_EPOCH_COMPLETED": BLUE,
    "GOVERNOR_ROLLBACK": RED,
}
PAYLOADS: tuple[dict[str, Any], ...] = (
    update()["data"],
    {"env_id": 0, "val_accuracy": 50.0, "val_loss": 1.0, "inner_epoch": 1},
    {
        "episodes_completed": 1,
        "batch_idx": 1,
        "avg_accuracy": 50.0,
        "avg_reward": 1.0,
        "total_episodes": 2,
        "n_envs": 1,
    },
    {"env_id": 0, "device": "cpu", "reason": "divergence"},
)


@pytest.mark.parametrize("colours", [NEW_NAMES, OLD_NAMES], ids=["new names", "old names"])
def test_events_have_the_documents_colours_and_filters(show: Show, colours: dict[str, str]) -> None:
    exporter = quiet()
    exporter.emit(started())
    for place, (name, data) in enumerate(zip(colours, PAYLOADS, strict=True), 1):
        exporter.emit(event(name, data, float(place)))
    tab = show(exporter, "#/events")
    read = (
        "return Object.fromEntries([...document.querySelectorAll('.log > div')].map((e) =>"
        " [e.dataset.type, getComputedStyle(e.children[1]).color]))"
    )
    tab.until("return document.querySelectorAll('.log > div').length >= 4")
    shown = tab.run(read)
    tab.run("[...document.querySelectorAll('.chips button')].pop().click()")
    tab.until("return document.querySelector('.log [data-type*=EPOCH_COMPLETED]')")
    shown |= tab.run(read)
    assert {name: shown.get(name) for name in colours} == colours
    tab.run("document.querySelectorAll('.chips button')[1].click()")
    tab.until("return document.querySelectorAll('.log > div').length === 1")
    tab.run("document.querySelectorAll('.chips button')[0].click()")
    tab.press("/")
    tab.until("return document.activeElement.id === 'log-text'")
    tab.press("divergence")
    tab.until("return document.querySelectorAll('.log > div').length === 1")


def test_a_fault_stays_in_the_log_through_any_number_of_steps(show: Show) -> None:
    exporter = quiet()
    exporter.emit(started())
    exporter.emit(update(1.0, head_nan_detected={"op": True}))
    tab = show(exporter)
    stage = {"slot_id": "r0c0", "env_id": 0, "from_stage": "TRAINING", "to_stage": "BLENDING"}
    for number in range(400):
        exporter.emit(decision(2.0 + number, number % 2))
        exporter.emit(event("SEED_STAGE_CHANGED", stage, 2.0 + number))
        if number % 100 == 99:
            tab.until(
                "return document.querySelector('.live .dim').innerText.includes('0.')"
                " || document.querySelector('.dec tr[data-decision]')"
            )
            time.sleep(1.1)
    assert "faults 1" in tab.text(".chips")
    tab.run("document.querySelectorAll('.chips button')[1].click()")
    tab.until("return document.querySelectorAll('.log > div').length === 1")
    assert "non-finite" in tab.texts(".log .crit")
    tab.go()  # and for who opens the page only now
    assert "faults 1" in tab.text(".chips")


def test_new_lines_wait_while_the_reader_points_at_the_log(show: Show) -> None:
    exporter = quiet()
    exporter.emit(started())
    tab = show(exporter)
    tab.until("return document.querySelectorAll('.log > div').length === 1")
    tab.run("document.querySelector('.log').dispatchEvent(new MouseEvent('mouseenter'))")
    exporter.emit(update(1.0))
    tab.until("return document.querySelector('.fresh')?.innerText === '1 new'")
    assert len(tab.texts(".log > div")) == 1
    tab.run("document.querySelector('.fresh').click()")
    tab.until("return document.querySelectorAll('.log > div').length === 2")


def test_keys_choose_views_theme_clock_and_help(show: Show) -> None:
    tab = show(recorded("run1", 6000))
    for key, view in (
        ("2", "policy"),
        ("3", "envs"),
        ("4", "events"),
        ("5", "system"),
        ("6", "config"),
    ):
        tab.press(key)
        tab.until("return location.hash.startsWith('#/' + arguments[0])", view)
    tab.press("1")
    tab.until("return location.hash === '#/'")
    tab.press("t")
    tab.until("return document.documentElement.classList.contains('light')")
    assert tab.run("return JSON.parse(localStorage.getItem('esper-page')).theme") == "light"
    tab.press("?")
    tab.until("return document.querySelector('.help')")
    tab.press("\ue00c")
    tab.until("return !document.querySelector('.help')")
    tab.press(" ")
    tab.until("return document.querySelector('.strip')?.innerText.includes('Paused')")
    tab.press(" ")
    tab.until("return !document.querySelector('.strip')")


def test_everything_that_can_be_clicked_can_be_reached_and_named(show: Show) -> None:
    tab = show(recorded("run1", 6000))
    nameless = tab.run(
        "return [...document.querySelectorAll('button, a, select, input')].filter((e) =>"
        " e.offsetParent && !(e.getAttribute('aria-label') || e.innerText.trim() ||"
        " e.closest('label') || e.title)).map((e) => e.outerHTML)"
    )
    assert nameless == []
    unreachable = tab.run(
        "return [...document.querySelectorAll('[data-env]')].filter((e) =>"
        " e.tabIndex < 0 && !e.closest('.dec')).length"
    )
    assert unreachable == 0
    assert tab.run("return document.querySelector('.word').getAttribute('role')") == "status"
    images = tab.run(
        "return [...document.querySelectorAll('svg')].filter((e) =>"
        " !(e.getAttribute('aria-hidden') || e.getAttribute('aria-label'))).length"
    )
    assert images == 0


def test_who_prefers_no_motion_gets_none(show: Show) -> None:
    tab = show(recorded("run1", 6000), motion="reduce")
    moving = tab.run(
        "return [...document.querySelectorAll('#app *')].filter((e) =>"
        " getComputedStyle(e).animationName !== 'none').length"
    )
    assert moving == 0


def _ask(exporter: Exporter, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    assert exporter.url is not None
    connection = http.client.HTTPConnection(urlsplit(exporter.url).netloc, timeout=10)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=names)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_page_of_another_site_learns_nothing() -> None:
    exporter = recorded("run2b")
    with exporter:
        for path in ("/api/v1/state", "/api/v1/history"):
            assert _ask(exporter, path)[0] == 200
            assert _ask(exporter, path, Sec_Fetch_Site="same-origin")[0] == 200
            assert _ask(exporter, path, Sec_Fetch_Site="cross-site")[0] == 403
            assert _ask(exporter, path, Sec_Fetch_Site="same-site")[0] == 403
            assert _ask(exporter, path, Origin="https://evil.example")[0] == 403
        assert _ask(exporter, "/api/v1/state", "POST")[0] == 405
        assert _ask(exporter, "/api/v1/replay", "POST")[0] == 404
        status, body = _ask(exporter, "/api/v1/schema/state")
        assert status == 200 and json.loads(body)["$id"].endswith("state.v1.json")
        assert _ask(exporter, "/page/../api.py")[0] == 404


@pytest.mark.parametrize("world", [lambda: recorded("run1", 6000), wide], ids=["run1", "64 × 9"])
def test_the_page_is_small_and_quick(show: Show, world: Callable[[], Exporter]) -> None:
    tab = show(world())
    tab.requests()
    tab.driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    tab.go("")
    painted = tab.until(
        "const [p] = performance.getEntriesByName('first-contentful-paint');"
        "const t = performance.getEntriesByType('navigation')[0];"
        "return p && (p.startTime - t.startTime) / 1000"
    )
    assert painted <= 1.0 * slack()
    # With the plots of the policy, which are the largest part that is loaded later.
    tab.go("#/policy")
    tab.until("return document.querySelectorAll('.plot canvas').length === 9")
    first: dict[str, int] = {}  # later polls depend on how long the machine takes
    for reply in tab.requests():
        first.setdefault(urlsplit(reply["url"]).path, reply["bytes"])
    assert 50_000 < sum(first.values()) <= 100_000


def test_a_hidden_tab_asks_for_nothing(show: Show) -> None:
    tab = show(recorded("run1", 6000))
    first = tab.driver.current_window_handle
    tab.driver.switch_to.new_window("tab")
    second = tab.driver.current_window_handle
    try:
        tab.driver.switch_to.window(first)
        tab.run(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        time.sleep(0.5)
        tab.requests()
        time.sleep(2.5)
        assert tab.requests() == []
        tab.run(
            "Object.defineProperty(document, 'hidden', {value: false, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        time.sleep(0.5)
        assert tab.requests()
    finally:
        tab.driver.switch_to.window(second)
        tab.driver.close()
        tab.driver.switch_to.window(first)


def test_a_poll_that_brings_nothing_new_is_a_304(show: Show) -> None:
    tab = show(recorded("run1", 6000))
    time.sleep(1.5)
    tab.requests()
    time.sleep(2.5)
    polls = tab.requests()
    assert {reply.get("status") for reply in polls if "api/v1/state" in reply["url"]} <= {304, None}
    assert not [reply for reply in polls if "api/v1/history" in reply["url"]]


def test_decisions_of_the_demo_s_kind_reach_the_table(show: Show) -> None:
    exporter = quiet()
    start = started()
    exporter.emit(start | {"timestamp": NOON + timedelta(seconds=1)})
    exporter.emit(decision(2.0, 1, "PRUNE"))
    tab = show(exporter)
    tab.until("return document.querySelector('.dec tr[data-decision]')?.dataset.env === '1'")
