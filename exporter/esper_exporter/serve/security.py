"""A web configuration in force: TLS, passwords and headers, read again when its files change."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper_exporter.serve.auth import Passwords, Verdict
from esper_exporter.serve.messages import Answer, Fields, Headers, plain
from esper_exporter.serve.tls import certificate_admitted, tls_context
from esper_exporter.serve.trouble import LOG
from esper_exporter.serve.web_config import (
    RateLimit,
    WebConfig,
    WebConfigError,
    missing_extra,
    read_web_config,
)
from esper_exporter.serve.workers import Workers

CHECK_SECONDS = 1.0
SETTLED_SECONDS = 0.5
"""A file that was written less long ago may still be being written."""

Stamp = tuple[tuple[str, int, int, int], ...]
"""Path, time of change in nanoseconds, size and inode of each file (0 where it is missing)."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration with everything it names read in."""

    config: WebConfig
    context: ssl.SSLContext | None


def load(path: Path) -> Loaded:
    """Read the file and its certificates. Raises WebConfigError, also for passwords that nothing
    could check: serving without them is no choice."""
    config = read_web_config(path)
    if config.users:
        try:
            import bcrypt  # noqa: F401
        except ModuleNotFoundError as error:
            raise WebConfigError(missing_extra(path, error)) from None
    return Loaded(config, None if config.tls is None else tls_context(config.tls))


def _stamp(files: tuple[Path, ...]) -> Stamp:
    found = []
    for path in files:
        try:
            state = os.stat(path)
        except OSError:
            found.append((str(path), 0, 0, 0))
        else:
            found.append((str(path), state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(found)


class WatchedConfig:
    """The configuration of a file, following its changes.

    The files are looked at when somebody connects or asks, at most once a second. What is new is
    taken when it has been left alone for half a second, so that a file is not read while it is
    being written. A new version that is broken, or that would take away TLS or the passwords, is
    told once and not taken: the old one stays in force. Raises WebConfigError when the first
    version cannot be used.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path.absolute()
        self._clock = clock
        self._now = now
        before = _stamp((self._path,))
        self._loaded = load(self._path)
        # Stamped before it was read: a change in between is seen as one.
        self._stamp = before + _stamp(self._loaded.config.files)[1:]
        self._candidate = self._stamp
        self._checked = clock()

    @property
    def in_force(self) -> Loaded:
        """What was taken last; looks at no file, so any thread may ask."""
        return self._loaded

    def current(self) -> Loaded:
        """What is in force now; on the event loop's thread."""
        now = self._clock()
        if now - self._checked >= CHECK_SECONDS:
            self._checked = now
            self._follow()
        return self._loaded

    def _follow(self) -> None:
        stamp = _stamp(self._loaded.config.files)
        if stamp == self._stamp:
            return
        newest = max(changed for _, changed, _, _ in stamp) * 1e-9
        seen_before = stamp == self._candidate
        self._candidate = stamp
        if not seen_before and self._now() - newest < SETTLED_SECONDS:
            return
        # Whatever comes of it, this state of the files has been looked at.
        self._stamp = stamp
        try:
            loaded = load(self._path)
            self._refuse_opening(loaded.config)
        except Exception as error:  # whatever is wrong with the new files: they are foreign
            LOG.error("the new web configuration is not taken, the old one stays: %s", error)
            return
        self._loaded = loaded
        self._stamp = stamp[:1] + _stamp(loaded.config.files)[1:]
        self._candidate = self._stamp
        LOG.warning("the web configuration %s was read again", self._path)

    def _refuse_opening(self, new: WebConfig) -> None:
        """A file that is cut short looks like one that asks for nothing."""
        old = self._loaded.config
        for what, had, has in (
            ("TLS", old.tls, new.tls),
            ("basic_auth_users", old.users, new.users),
        ):
            if had and not has:
                raise WebConfigError(f"{self._path}: {what} is gone; that needs a new start")


class TokenBucket:
    """``rate_limit``: so many requests at once, and one more per interval."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._tokens = float(limit.burst)
        self._filled = clock()

    def take(self) -> bool:
        now = self._clock()
        fresh = (now - self._filled) / self.limit.interval
        self._tokens = min(float(self.limit.burst), self._tokens + fresh)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


_CHALLENGE = (b"www-authenticate", b'Basic realm="esper-exporter", charset="UTF-8"')
_SOON = (b"retry-after", b"1")
_REFUSALS: Mapping[Verdict, Answer] = {
    Verdict.WRONG: plain(401, "A user and a password are needed.", _CHALLENGE),
    Verdict.TOO_MANY_FROM_HERE: plain(429, "Too many passwords are being checked.", _SOON),
    Verdict.TOO_MANY: plain(503, "Too many passwords are being checked.", _SOON),
}
_LIMITED = plain(429, "The rate limit of the web configuration is reached.", _SOON)


class WebSecurity:
    """Applies a watched configuration to connections and requests; on the event loop's thread."""

    def __init__(
        self,
        config: WatchedConfig,
        workers: Workers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._workers = workers
        self._passwords: Passwords | None = None
        self._clock = clock
        self._bucket: TokenBucket | None = None

    def tls(self) -> ssl.SSLContext | None:
        """The context for a new connection."""
        return self._config.current().context

    def admits(self, peer_certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client with this verified certificate may stay."""
        return certificate_admitted(self._config.current().config.tls, peer_certificate)

    async def refusal(self, headers: Headers, address: str) -> Answer | None:
        """The answer for a request that may not pass."""
        config = self._config.current().config
        if not self._within_rate(config.rate_limit):
            return _LIMITED
        if not config.users:
            return None
        if self._passwords is None:
            self._passwords = Passwords(self._workers)
        verdict = await self._passwords.judge(config.users, headers.get(b"authorization"), address)
        return _REFUSALS.get(verdict)

    def fields(self) -> Fields:
        """``http_server_config.headers``."""
        headers = self._config.current().config.headers
        return tuple((name.lower().encode(), value.encode()) for name, value in headers)

    def _within_rate(self, limit: RateLimit | None) -> bool:
        if limit is None:
            self._bucket = None
            return True
        if self._bucket is None or self._bucket.limit != limit:
            self._bucket = TokenBucket(limit, self._clock)
        return self._bucket.take()
