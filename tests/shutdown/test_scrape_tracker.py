"""Lingering: until every scraper that comes regularly has fetched what happened, or the limit."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from esper_exporter.serve.interfaces import Visit
from esper_exporter.shutdown.scrape_tracker import ScrapeTracker
from esper_exporter.shutdown.scrapers import MAX_CLIENTS, MAX_CONNECTIONS, Scrapers
from support.served import PROMETHEUS, page_seen


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A tracker with a clock that tests move, and clients that come to it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tracker = ScrapeTracker(self.clock)

    def visit(self, **client: Any) -> None:
        self.tracker.served(page_seen(self.clock.now, **client))

    def serious(self) -> None:
        self.clock.now += 0.5
        self.tracker.serious()
        self.clock.now += 0.5

    def pass_(self, seconds: float, **clients: tuple[float, dict[str, Any]]) -> None:
        """Let time pass, second by second; each client comes at its interval."""
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            for interval, client in clients.values():
                if self.clock.now % interval == 0:
                    self.visit(**client)


FAST = (1.0, {"connection": 1, "timeout": 1.0})
SLOW = (10.0, {"connection": 2, "timeout": 10.0})
TWIN = (10.0, {"connection": 3, "timeout": 1.0})
"""A server like the fast one in all but its pace and its connection."""
NAMELESS = (10.0, {"connection": 4, "timeout": None})
WATCH = (1.0, {"user_agent": "curl/8.5.0", "timeout": None, "connection": 9})
BROWSER = (5.0, {"user_agent": "Mozilla/5.0 (X11; Linux)", "timeout": None, "connection": 8})


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_serious_is_not_waited_with(world: World) -> None:
    world.visit()
    assert not world.tracker.pending
    assert world.tracker.linger(60.0)


def test_a_page_that_is_known_to_have_arrived_has_seen_it(world: World) -> None:
    world.visit()
    world.serious()
    assert world.tracker.pending
    world.visit()
    assert not world.tracker.pending


def test_a_client_that_names_no_timeout_must_come_again(world: World) -> None:
    world.pass_(40.0, slow=NAMELESS)
    world.serious()
    world.pass_(10.0, slow=NAMELESS)
    assert world.tracker.pending
    world.pass_(10.0, slow=NAMELESS)
    assert not world.tracker.pending


@pytest.mark.parametrize("slow", [SLOW, TWIN])
def test_every_scraper_that_comes_regularly_must_have_seen_it(
    world: World, slow: tuple[float, dict[str, Any]]
) -> None:
    world.pass_(35.0, fast=FAST, slow=slow)
    world.serious()
    world.pass_(3.0, fast=FAST, slow=slow)
    assert world.tracker.pending
    world.pass_(10.0, fast=FAST, slow=slow)
    assert not world.tracker.pending


@pytest.mark.parametrize("person", [WATCH, BROWSER])
def test_a_person_is_no_scraper(world: World, person: tuple[float, dict[str, Any]]) -> None:
    world.pass_(30.0, person=person)
    assert not world.tracker.scraped_regularly
    world.serious()
    world.pass_(30.0, person=person)
    assert world.tracker.pending
    world.pass_(20.0, slow=SLOW)
    assert not world.tracker.pending


def test_who_names_a_scrape_timeout_is_a_scraper_whatever_it_calls_itself(world: World) -> None:
    world.visit(user_agent="curl/8.5.0", timeout=10.0)
    assert world.tracker.scraped_regularly


def test_a_scraper_that_has_gone_is_not_waited_for(world: World) -> None:
    world.pass_(40.0, fast=FAST, slow=SLOW)
    world.pass_(40.0, fast=FAST)
    world.serious()
    world.pass_(2.0, fast=FAST)
    assert not world.tracker.pending


def test_a_scraper_that_connects_anew_is_the_one_it_was(world: World) -> None:
    world.pass_(40.0, slow=SLOW)
    world.serious()
    world.pass_(20.0, slow=(10.0, {"connection": 77, "timeout": 10.0}))
    assert not world.tracker.pending


def test_clients_that_connect_for_each_page_are_one(world: World) -> None:
    for number in range(10):
        world.clock.now += 5.0
        world.visit(user_agent="Python-urllib/3.11", timeout=None, connection=number)
    assert world.tracker.scraped_regularly
    world.serious()
    for number in (20, 21):
        assert world.tracker.pending
        world.clock.now += 5.0
        world.visit(user_agent="Python-urllib/3.11", timeout=None, connection=number)
    assert not world.tracker.pending


def test_one_visit_of_an_unknown_client_is_no_scraper(world: World) -> None:
    world.visit(user_agent="Python-urllib/3.11", timeout=None)
    assert not world.tracker.scraped_regularly


def test_a_page_that_did_not_arrive_was_not_seen(world: World) -> None:
    world.pass_(30.0, slow=SLOW)
    world.serious()
    world.pass_(30.0, slow=(10.0, {**SLOW[1], "complete": False}))
    assert world.tracker.pending


def test_a_page_asked_for_before_it_happened_does_not_count(world: World) -> None:
    asked_before = world.clock.now
    world.clock.now += 1.0
    world.serious()
    world.clock.now += 1.0
    # However late the delivery is reported.
    for _ in range(2):
        world.tracker.served(page_seen(asked_before))
    assert world.tracker.pending
    world.visit()
    assert not world.tracker.pending


@pytest.mark.parametrize("rendered_late", [0.0, 2.0])
def test_a_page_that_shows_an_older_state_does_not_count(
    world: World, rendered_late: float
) -> None:
    """Another thread kept the state to itself: the page is the one captured before."""
    world.pass_(30.0, slow=SLOW)
    captured = world.clock.now
    world.serious()
    asked = world.clock.now
    world.clock.now += rendered_late
    world.tracker.rendered_older(captured)
    world.clock.now += 1.0
    world.tracker.served(page_seen(asked, seconds=rendered_late + 1.0, **SLOW[1]))
    assert world.tracker.pending
    world.visit(**SLOW[1])
    assert not world.tracker.pending


def test_what_happens_anew_must_be_seen_anew(world: World) -> None:
    for _ in range(3):
        world.serious()
        assert world.tracker.pending
        world.visit()
        assert not world.tracker.pending


def test_who_has_asked_and_is_still_being_followed_comes_regularly(world: World) -> None:
    world.tracker.visited(Visit("10.0.0.1", PROMETHEUS, world.clock.now, 10.0, 1))
    assert world.tracker.scraped_regularly
    world.serious()
    assert world.tracker.pending
    world.tracker.served(page_seen(world.clock.now - 1.0, address="10.0.0.1"))
    assert world.tracker.pending


def test_a_moment_is_seen_when_all_who_still_come_have_seen_it(world: World) -> None:
    world.pass_(40.0, fast=FAST, slow=SLOW)
    moment = world.clock.now + 0.5
    world.pass_(8.0, fast=FAST, slow=SLOW)
    assert not world.tracker.seen_since(moment)
    world.pass_(2.0, fast=FAST, slow=SLOW)
    assert world.tracker.seen_since(moment)
    later = world.clock.now + 0.5
    world.pass_(60.0, fast=FAST)
    assert world.tracker.seen_since(later)


def test_a_second_visit_that_comes_too_late_is_not_waited_for(world: World) -> None:
    world.pass_(40.0, slow=NAMELESS)
    world.serious()
    world.pass_(10.0, slow=NAMELESS)
    assert world.tracker.pending
    assert world.tracker.linger(5.0)


@pytest.mark.parametrize("scrapes", [0, 1])
def test_the_limit_ends_the_wait(scrapes: int, caplog: pytest.LogCaptureFixture) -> None:
    tracker = ScrapeTracker()
    for _ in range(2):
        tracker.served(page_seen(timeout=None))
    tracker.serious()
    for _ in range(scrapes):
        tracker.served(page_seen(timeout=None))
    assert not tracker.linger(0.01, "Ctrl-C")
    assert "staying up to 0 s" in caplog.text
    assert "Ctrl-C ends at once" in caplog.text
    assert ("not seen how the run ended: " + PROMETHEUS in caplog.text) is (scrapes == 0)


def test_scrapes_end_the_wait() -> None:
    tracker = ScrapeTracker()
    tracker.serious()
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(tracker.linger(60.0)))
    waiting.start()
    tracker.served(page_seen(time.monotonic()))
    tracker.served(page_seen(time.monotonic()))
    waiting.join(30.0)
    assert found == [True]


def test_no_number_of_clients_and_connections_fills_the_memory() -> None:
    scrapers = Scrapers()
    for number in range(3 * MAX_CLIENTS):
        scrapers.visit(page_seen(float(number), address=f"10.0.0.{number}"))
    assert len(list(scrapers.all())) == MAX_CLIENTS
    for number in range(3 * MAX_CONNECTIONS):
        for _ in range(2):
            scrapers.visit(page_seen(1e6 + number, connection=number))
    assert len(list(scrapers.all())) <= MAX_CLIENTS + MAX_CONNECTIONS


def test_a_receiver_that_has_the_page_stands_in_for_strangers_alone(world: World) -> None:
    world.serious()
    assert world.tracker.pending
    world.tracker.delivered(world.clock.now - 0.75)
    assert world.tracker.pending, "it has the page of before"
    world.tracker.delivered(world.clock.now)
    assert not world.tracker.pending
    world.pass_(30, fast=FAST)
    world.serious()
    world.tracker.delivered(world.clock.now)
    assert world.tracker.pending, "a scraper comes regularly"
