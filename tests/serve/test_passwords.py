"""Passwords are checked beside the loop, few at a time, and remembered without being kept."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter.serve.auth import Passwords, Verdict, credentials
from esper_exporter.serve.workers import Workers

T = TypeVar("T")
HASHES = {"alice": bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()}
RIGHT, WRONG = Verdict.RIGHT, Verdict.WRONG


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


class Checks:
    """Stands for bcrypt: counts, and can be held."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bytes]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self._lock = threading.Lock()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        with self._lock:
            self.seen.append((password, hashed))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.go_on.wait(10)
        with self._lock:
            self.at_once -= 1
        return bcrypt.checkpw(password, hashed)


def run(work: Callable[[Passwords], Awaitable[T]], checks: Checks | None = None) -> T:
    """Run on a separate loop, with workers that end with it."""
    workers = Workers(4, "esper-exporter-test")

    async def main() -> T:
        return await work(Passwords(workers, checks or Checks()))

    try:
        return asyncio.run(main())
    finally:
        workers.close(5)


def test_each_password_is_hashed_once_right_or_wrong() -> None:
    checks = Checks()

    async def work(passwords: Passwords) -> list[Verdict]:
        given = [basic("alice", "right"), basic("alice", "wrong"), basic("bob", "right")] * 3
        return [await passwords.judge(HASHES, header, "a") for header in given]

    assert run(work, checks) == [RIGHT, WRONG, WRONG] * 3
    assert len(checks.seen) == 3


def test_an_unknown_user_costs_a_hash_of_the_same_cost() -> None:
    checks = Checks()

    async def work(passwords: Passwords) -> Verdict:
        return await passwords.judge(HASHES, basic("bob", "x"), "a")

    assert run(work, checks) is WRONG
    assert checks.seen[0][1][:7] == HASHES["alice"].encode()[:7]


def test_a_changed_hash_is_a_new_question() -> None:
    async def work(passwords: Passwords) -> list[Verdict]:
        header = basic("alice", "right")
        changed = {"alice": bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()}
        return [await passwords.judge(users, header, "a") for users in (HASHES, changed, {})]

    assert run(work) == [RIGHT, WRONG, WRONG]


def test_wrong_passwords_do_not_push_out_the_right_one() -> None:
    checks = Checks()

    async def work(passwords: Passwords) -> Verdict:
        await passwords.judge(HASHES, basic("alice", "right"), "a")
        for i in range(150):
            await passwords.judge(HASHES, basic("alice", f"wrong {i}"), "a")
        before = len(checks.seen)
        verdict = await passwords.judge(HASHES, basic("alice", "right"), "a")
        assert len(checks.seen) == before
        return verdict

    assert run(work, checks) is RIGHT


def test_the_same_password_at_the_same_time_is_hashed_once() -> None:
    checks = Checks()

    async def work(passwords: Passwords) -> list[Verdict]:
        header = basic("alice", "right")
        return await asyncio.gather(
            *(passwords.judge(HASHES, header, str(i % 3)) for i in range(50))
        )

    assert run(work, checks) == [RIGHT] * 50
    assert len(checks.seen) == 1


def test_a_flood_is_refused_beyond_a_few_and_another_address_still_gets_in() -> None:
    checks = Checks()
    checks.go_on.clear()

    async def work(passwords: Passwords) -> tuple[list[Verdict], Verdict, list[Verdict]]:
        flood = [
            asyncio.create_task(passwords.judge(HASHES, basic("alice", str(i)), "attacker"))
            for i in range(100)
        ]
        await asyncio.sleep(0)
        scraper = asyncio.create_task(passwords.judge(HASHES, basic("alice", "right"), "scraper"))
        others = [
            asyncio.create_task(passwords.judge(HASHES, basic("x", str(i)), f"other {i}"))
            for i in range(50)
        ]
        await asyncio.sleep(0.05)
        checks.go_on.set()
        return (await asyncio.gather(*flood), await scraper, await asyncio.gather(*others))

    flood, scraper, others = run(work, checks)
    assert (flood.count(WRONG), flood.count(Verdict.TOO_MANY_FROM_HERE)) == (4, 96)
    assert scraper is RIGHT
    assert (others.count(WRONG), others.count(Verdict.TOO_MANY)) == (11, 39)
    assert checks.most_at_once == 2


def test_a_slow_hash_does_not_hold_up_the_loop_nor_the_interpreter() -> None:
    slow = {"alice": bcrypt.hashpw(b"right", bcrypt.gensalt(11)).decode()}

    async def turns(passwords: Passwords) -> int:
        task = asyncio.create_task(passwords.judge(slow, basic("alice", "right"), "a"))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    workers = Workers(4, "esper-exporter-test")

    async def main() -> int:
        return await turns(Passwords(workers))

    made = asyncio.run(main())
    workers.close(5)
    # Thousands; a hash that held the interpreter, or ran on the loop, would leave it a few.
    assert made > 100


def test_a_waiting_client_that_leaves_takes_nothing_along() -> None:
    checks = Checks()
    checks.go_on.clear()

    async def work(passwords: Passwords) -> Verdict:
        header = basic("alice", "right")
        first = asyncio.create_task(passwords.judge(HASHES, header, "a"))
        second = asyncio.create_task(passwords.judge(HASHES, header, "b"))
        await asyncio.sleep(0.01)
        first.cancel()
        checks.go_on.set()
        return await second

    assert run(work, checks) is RIGHT


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"Basic YTpi", ("a", b"b")),
        (b"bAsIc   YTpi  ", ("a", b"b")),
        (b"Basic " + base64.b64encode(b"a:b:c"), ("a", b"b:c")),
        (b"Basic " + base64.b64encode(b":"), ("", b"")),
        (b"Basic " + base64.b64encode("ü:ß".encode()), ("ü", "ß".encode())),
        (b"Basic " + base64.b64encode(b"ab"), None),
        (b"Basic " + base64.b64encode(b"\xff:a"), None),
        (b"Basic YTpi!", None),
        (b"Basic", None),
        (b"Digest YTpi", None),
        (b"", None),
        (None, None),
    ],
)
def test_credentials_are_read_as_rfc_7617_writes_them(
    header: bytes | None, expected: tuple[str, bytes] | None
) -> None:
    assert credentials(header) == expected


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"Basic " + data))
def test_any_header_is_read_or_refused(header: bytes) -> None:
    found = credentials(header)
    assert found is None or isinstance(found[1], bytes)
