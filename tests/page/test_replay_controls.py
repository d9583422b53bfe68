"""A recording is watched like a live run: paused, sped up, sought; and `watch` opens it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from esper_exporter import Exporter
from esper_exporter.commands.watch_command import page_address
from esper_exporter.replay.pace import feed_into
from esper_exporter.replay.player import Player, marks_of, playable
from esper_exporter.replay.progress import Text
from esper_exporter.replay.session import Plan
from esper_exporter.replay.stop import Stop
from page.browser import Tab
from page.test_api import state
from page.worlds import quiet
from support.pages import value
from support.programs import wait_until
from support.recordings import telemetry, telemetry_lines

Show = Callable[..., Tab]


class Playing:
    """A player on a separate thread, and the exporter that it feeds."""

    def __init__(self, name: str, speed: float) -> None:
        self.exporter = quiet()
        self.stop = Stop()
        self.ended = threading.Event()
        plan = Plan([str(telemetry(name))], speed)
        self.player = Player(
            plan,
            feed_into(self.exporter.emit, self.exporter.emit_line),
            self.exporter.forget_runs,
            self.exporter.end_recordings,
            self.stop,
            Text(),
        )
        self.exporter.page.replay = self.player
        self._thread = threading.Thread(
            target=self.player.play, args=(lambda _outcome: self.ended.set(),)
        )
        self._thread.start()

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        pause = threading.Event()
        for _ in range(600):
            answer = state(self.exporter)
            if condition(answer):
                return answer
            pause.wait(0.05)
        raise AssertionError(answer["replay"] | {"marks": None})

    def close(self) -> None:
        self.stop.request()
        self._thread.join(30)
        self.player.close()
        self.stop.close()


@pytest.fixture
def play() -> Iterator[Callable[..., Playing]]:
    playing: list[Playing] = []

    def begun(name: str, speed: float = 0.0) -> Playing:
        playing.append(Playing(name, speed))
        return playing[-1]

    yield begun
    for each in playing:
        each.close()


def test_every_update_and_fault_of_a_recording_can_be_sought() -> None:
    marks = marks_of(telemetry_lines("run2b"))
    assert [mark.text for mark in marks if mark.kind == "update"] == [
        "update 1",
        "update 2",
        "update 3, skipped",
        "update 4",
        "update 5, skipped",
        "update 6, skipped",
    ]
    assert [mark.text for mark in marks if mark.kind == "fault"] == [
        "not finite at update 3",
        "not finite at update 5",
        "not finite at update 6",
    ]


def test_an_event_under_both_its_names_is_one_update() -> None:
    lines = [b'{"event_type": "PPO_UPDATE_COMPLETED"}', b'{"event_type": "TAMIYO_POLICY_UPDATE"}']
    assert len(marks_of(lines * 3)) == 3


def test_a_long_recording_keeps_its_faults_and_thins_its_updates() -> None:
    marks = marks_of([b'"PPO_UPDATE_COMPLETED"'] * 5000 + [b'"GOVERNOR_ROLLBACK"'])
    assert len(marks) <= 2000
    assert marks[-1].kind == "rollback"


def test_what_cannot_be_held_has_no_controls(tmp_path: Path) -> None:
    assert playable(Plan([str(telemetry("run1"))]))
    assert not playable(Plan(["-"]))
    assert not playable(Plan([str(telemetry("run1"))], follow=True))
    assert not playable(Plan([str(tmp_path / "missing")]))


def test_it_seeks_forward_and_back_and_the_past_forgets_the_future(
    play: Callable[..., Playing],
) -> None:
    playing = play("run2b")
    answer = playing.until(lambda answer: answer["replay"]["exhausted"])
    assert answer["runs"][0]["latched"] == 3
    playing.player.command("pause", "1")
    playing.player.command("seek", "update:2")
    answer = playing.until(lambda answer: answer["replay"]["position"] == 270)
    run = answer["runs"][0]
    assert (run["latched"], run["updates"], run["state"]) == (0, 2, "running")
    playing.player.command("seek", "fault:1")
    answer = playing.until(lambda answer: answer["runs"] and answer["runs"][0]["latched"] > 0)
    assert answer["runs"][0]["latched_heads"] == ["tempo"]
    assert answer["replay"]["paused"]
    playing.player.command("pause", "0")
    playing.until(lambda answer: answer["replay"]["exhausted"])


def test_a_recording_that_stops_short_has_ended_each_time_that_it_was_played(
    play: Callable[..., Playing],
) -> None:
    playing = play("run2b")

    def ended(answer: dict[str, Any]) -> bool:
        return bool(answer["runs"]) and answer["runs"][0]["state"] in ("ended", "failed")

    def active() -> float | None:
        return value(playing.exporter.render().decode(), "esper_run_active")

    playing.until(ended)
    wait_until(lambda: active() == 0.0, "it has ended")
    playing.player.command("pause", "1")
    playing.player.command("seek", "update:2")
    playing.until(lambda answer: answer["replay"]["position"] == 270)
    assert active() == 1.0
    playing.player.command("pause", "0")
    playing.until(lambda answer: answer["replay"]["exhausted"])
    wait_until(lambda: active() == 0.0, "it has ended again")


def test_a_paused_recording_stays_put_and_a_new_speed_applies_at_once(
    play: Callable[..., Playing],
) -> None:
    playing = play("run2b", speed=0.001)  # as good as standing
    playing.until(lambda answer: answer["replay"]["position"] >= 1)
    playing.player.command("pause", "1")
    here = playing.until(lambda answer: answer["replay"]["paused"])["replay"]["position"]
    playing.player.command("speed", "0")
    assert not playing.ended.wait(0.3)
    assert state(playing.exporter)["replay"]["position"] <= here + 1
    playing.player.command("pause", "0")
    assert playing.ended.wait(120)


@pytest.mark.parametrize(
    ("action", "value"),
    [
        ("pause", "yes"),
        ("speed", "fast"),
        ("speed", "-1"),
        ("speed", "nan"),
        ("seek", "update:0"),
        ("seek", "update:99"),
        ("seek", "fault:x"),
        ("seek", "line:-1"),
        ("seek", "²"),
        ("stop", "1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    play: Callable[..., Playing], action: str, value: str
) -> None:
    playing = play("run2b")
    with pytest.raises(ValueError):
        playing.player.command(action, value)


def test_a_seek_beyond_the_end_is_the_end(play: Callable[..., Playing]) -> None:
    playing = play("run2b", speed=0.001)
    playing.player.command("seek", "line:999999")
    playing.until(lambda answer: answer["replay"]["exhausted"])


def test_the_page_pauses_and_seeks(play: Callable[..., Playing], show: Show) -> None:
    playing = play("run2b")
    assert playing.ended.wait(120)
    tab = show(playing.exporter)
    tab.until("return document.querySelector('.replay .marks i.fault')")
    assert "of 6" in tab.text(".replay")
    buttons = "[...document.querySelectorAll('.replay button.text')]"
    tab.run(f"{buttons}.find((b) => b.innerText === '‹ fault').click()")
    tab.until(f"return {buttons}.find((b) => b.innerText === 'fault ›')")
    playing.player.command("pause", "1")
    playing.player.command("seek", "update:1")
    tab.until("return document.querySelector('.p-policy .note').innerText === '1 update'")
    tab.until("return document.querySelector('.live b').innerText === 'paused'")
    assert tab.text(".latches .sum").split("\n")[1] == "none set"
    tab.press(" ")
    tab.until("return document.querySelector('.strip')?.innerText.includes('failed')")
    assert tab.complaints() == []


BUTTON = "[...document.querySelectorAll('.replay button')].find((b) => b.innerText === '{}')"
POSITION = "Number(document.querySelector('.replay')?.dataset.position)"
PLAY = "document.querySelector('.replay .play')"


@pytest.mark.parametrize("label", ["‹ update", "update ›", "‹ fault", "fault ›"])
def test_a_step_pauses(play: Callable[..., Playing], show: Show, label: str) -> None:
    playing = play("run2b", speed=0.001)  # as good as standing
    marks = playing.until(lambda answer: bool(answer["replay"]))["replay"]["marks"]
    fourth = [mark["line"] for mark in marks if mark["kind"] == "update"][3]
    here = fourth + 10
    playing.player.command("seek", f"line:{here}")
    playing.until(lambda answer: answer["replay"]["position"] >= here)
    tab = show(playing.exporter)
    tab.until(f"return {POSITION} >= arguments[0] && {PLAY}.ariaLabel === 'pause'", here)
    tab.run(f"{BUTTON.format(label)}.click()")
    tab.until(f"return {PLAY}.ariaLabel === 'play'")
    lines = [mark["line"] for mark in marks if mark["kind"] in label]
    before = [line for line in lines if line < here]
    target = before[-1] if label.startswith("‹") else lines[len(before)]
    playing.until(
        lambda answer: answer["replay"]["paused"] and answer["replay"]["position"] == target
    )


def test_a_recording_that_has_ended_can_be_played_again(
    play: Callable[..., Playing], show: Show
) -> None:
    playing = play("run2b")
    assert playing.ended.wait(120)
    tab = show(playing.exporter)
    tab.until(f"return {PLAY}?.ariaLabel === 'play again'")
    assert (tab.text(".replay .play"), tab.run(f"return {PLAY}.disabled")) == ("▶", False)
    playing.player.command("speed", "0.001")
    tab.run(f"{PLAY}.click()")
    tab.until(f"return {PLAY}.ariaLabel === 'pause' && {POSITION} < 10")
    playing.player.command("pause", "1")
    playing.player.command("seek", "line:999999")
    tab.until(f"return {PLAY}.ariaLabel === 'play again'")
    tab.press(" ")
    tab.until(f"return {PLAY}.ariaLabel === 'pause' && {POSITION} < 10")
    assert tab.complaints() == []


def test_a_recording_that_stands_still_is_neither_live_nor_aging(
    play: Callable[..., Playing], show: Show
) -> None:
    playing = play("run2b")
    assert playing.ended.wait(120)
    tab = show(playing.exporter)
    tab.until("return document.querySelector('.live')?.innerText.includes('failed')")
    assert tab.text(".live") == "failed gave up: non-finite · recording ended"
    playing.player.command("pause", "1")
    playing.player.command("seek", "update:2")
    tab.until("return document.querySelector('.live b').innerText === 'paused'")
    assert tab.text(".live") == "paused"
    assert tab.run("return document.querySelector('.pulse')") is None


def _watch(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "esper_exporter", "watch", *arguments, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_watch_says_where_to_look_and_plays_the_file() -> None:
    watching = _watch(str(telemetry("run2b")), "--speed", "0")
    try:
        assert watching.stdout is not None
        address = re.search(r"open (http://[\d.:]+)", watching.stdout.readline())
        assert address is not None
        connection = http.client.HTTPConnection(urlsplit(address[1]).netloc, timeout=10)
        connection.request("GET", "/api/v1/state")
        answer = json.loads(connection.getresponse().read())
        assert answer["replay"] is None or answer["replay"]["name"] == telemetry("run2b").name
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0


def test_watch_opens_an_exporter_that_answers_and_refuses_what_is_none() -> None:
    exporter: Exporter = quiet()
    with exporter:
        for address in (f"{exporter.url}", f"{exporter.url}/metrics"):
            watching = _watch(address)
            out, _ = watching.communicate(timeout=60)
            assert (watching.returncode, out.strip()) == (0, f"open {exporter.url}/")
        gone = f"{exporter.url}"
    watching = _watch(gone)
    out, _ = watching.communicate(timeout=60)
    assert watching.returncode == 1
    assert gone in out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://node:9108", "http://node:9108/"),
        ("http://node:9108/metrics", "http://node:9108/"),
        ("https://proxy/esper/metrics/", "https://proxy/esper/"),
        ("http://[::1]:9108/?a=1#b", "http://[::1]:9108/"),
    ],
)
def test_the_page_s_address_comes_from_any_of_the_exporter_s(given: str, expected: str) -> None:
    assert page_address(given) == expected
