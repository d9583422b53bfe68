"""Basic authentication with bcrypt that cannot stall the training.

bcrypt is slow by design, so worker threads run it, at most two at a time. It releases the
interpreter lock: beside a verification of 390 ms, another thread waited 1.6 ms at most. The queue
is short, and shorter for each address. The verdict on a user and password, right or wrong, is
cached, so a known scraper costs one HMAC per scrape.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial

from esper_exporter.serve.workers import Workers

_CACHED = 100
_AT_ONCE = 2
_WAITING = 16
_WAITING_PER_ADDRESS = 4
_BCRYPT_BYTES = 72
"""bcrypt reads this many bytes of a password; longer ones are cut, as other servers do."""


class Verdict(Enum):
    """The result of checking a request's credentials."""

    RIGHT = "right"
    WRONG = "wrong"
    """Missing, unreadable, unknown user or wrong password: the client cannot tell which."""
    TOO_MANY_FROM_HERE = "too many from this address"
    TOO_MANY = "too many"


def credentials(authorization: bytes | None) -> tuple[str, bytes] | None:
    """User and password of a Basic ``Authorization`` header (RFC 7617); None if it has none."""
    scheme, _, encoded = (authorization or b"").strip().partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


class Remembered:
    """The hundred keys most recently looked up or added."""

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        if key not in self._keys:
            return False
        self._keys.move_to_end(key)
        return True

    def add(self, key: bytes) -> None:
        self._keys[key] = None
        while len(self._keys) > _CACHED:
            self._keys.popitem(last=False)


class Passwords:
    """Checks credentials; used on the event loop's thread only.

    The cache's key is an HMAC of user, hash and password under a key of this process, so passwords
    do not stay in memory, and a changed hash is checked afresh.
    """

    def __init__(
        self, workers: Workers, check: Callable[[bytes, bytes], bool] | None = None
    ) -> None:
        self._workers = workers
        self._check = _bcrypt_check() if check is None else check
        self._key = os.urandom(32)
        self._right = Remembered()
        self._wrong = Remembered()
        self._under_way: dict[bytes, asyncio.Task[bool]] = {}
        self._by_address: Counter[str] = Counter()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def judge(
        self, users: Mapping[str, str], authorization: bytes | None, address: str
    ) -> Verdict:
        """The verdict on one request from a client at ``address``."""
        given = credentials(authorization)
        if given is None:
            return Verdict.WRONG
        user, password = given
        hashed = users.get(user)
        known = hashed is not None
        hashed = hashed or _stand_in(users)
        key = self._digest(user, hashed, password, known)
        if key in self._right:
            return Verdict.RIGHT
        if key in self._wrong:
            return Verdict.WRONG
        task = self._under_way.get(key)
        if task is None:
            if self._by_address[address] >= _WAITING_PER_ADDRESS:
                return Verdict.TOO_MANY_FROM_HERE
            if len(self._under_way) >= _WAITING:
                return Verdict.TOO_MANY
            task = asyncio.create_task(self._verify(key, hashed, password, known))
            self._under_way[key] = task
            self._by_address[address] += 1
            task.add_done_callback(partial(self._forget, key, address))
        return Verdict.RIGHT if await asyncio.shield(task) else Verdict.WRONG

    async def _verify(self, key: bytes, hashed: str, password: bytes, known: bool) -> bool:
        async with self._slots:
            matches = await self._workers.submit(
                partial(self._check, password[:_BCRYPT_BYTES], hashed.encode())
            )
        right = matches and known
        (self._right if right else self._wrong).add(key)
        return right

    def _forget(self, key: bytes, address: str, _task: asyncio.Task[bool]) -> None:
        del self._under_way[key]
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def _digest(self, user: str, hashed: str, password: bytes, known: bool) -> bytes:
        parts = (user.encode(), hashed.encode(), password, bytes([known]))
        message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._key, message, hashlib.sha256)


def _bcrypt_check() -> Callable[[bytes, bytes], bool]:
    import bcrypt  # from the extra ``web``; without it a configuration with users is refused

    return bcrypt.checkpw


def _stand_in(users: Mapping[str, str]) -> str:
    """A hash that makes an unknown user's check take as long as a known one's."""
    cost = max((hashed[4:6] for hashed in users.values()), default="10")
    return f"$2b${cost}$" + "." * 53
