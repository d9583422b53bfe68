"""Lingering: until two scrapes have fetched what happened, or the limit."""

from __future__ import annotations

import threading
import time

import pytest

from esper_exporter.shutdown.scrape_tracker import Seen


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_serious_is_not_waited_with() -> None:
    seen = Seen()
    seen.scraped(time.monotonic())
    assert not seen.pending
    assert seen.linger(60.0)


def test_two_scrapes_after_it_have_seen_it() -> None:
    seen = Seen()
    seen.scraped(time.monotonic())
    seen.serious()
    for pending in (True, False):
        seen.scraped(time.monotonic())
        assert seen.pending is pending


def test_a_page_asked_for_before_it_happened_does_not_count() -> None:
    clock = Clock()
    seen = Seen(clock)
    asked_before = clock.now
    clock.now += 1.0
    seen.serious()
    clock.now += 1.0
    # However late it is told that it was delivered.
    for _ in range(2):
        seen.scraped(asked_before)
    seen.scraped(clock.now)
    assert seen.pending
    seen.scraped(clock.now)
    assert not seen.pending


def test_what_happens_anew_must_be_seen_anew() -> None:
    seen = Seen()
    for _ in range(3):
        seen.serious()
        seen.scraped(time.monotonic())
    assert seen.pending


@pytest.mark.parametrize("scrapes", [0, 1])
def test_the_limit_ends_the_wait(scrapes: int, caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    seen.serious()
    for _ in range(scrapes):
        seen.scraped(time.monotonic())
    assert not seen.linger(0.01)
    assert "staying up to 0 s for two scrapes" in caplog.text


def test_scrapes_end_the_wait() -> None:
    seen = Seen()
    seen.serious()
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(seen.linger(60.0)))
    waiting.start()
    seen.scraped(time.monotonic())
    seen.scraped(time.monotonic())
    waiting.join(30.0)
    assert found == [True]
