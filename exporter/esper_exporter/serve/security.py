"""Apply a web configuration: TLS, passwords and headers; reload it when its files change."""

from __future__ import annotations

import logging
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
from esper_exporter.serve.web_config import (
    RateLimit,
    WebConfig,
    WebConfigError,
    missing_extra,
    read_web_config,
)
from esper_exporter.serve.workers import Workers

LOG = logging.getLogger("esper_exporter.serve")

CHECK_SECONDS = 1.0
SETTLED_SECONDS = 0.5
"""A file modified more recently than this may still be incomplete."""

Stamp = tuple[tuple[str, int, int, int], ...]
"""Path, mtime in nanoseconds, size and inode of each file (0 where it is missing)."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration with the files that it names loaded."""

    config: WebConfig
    context: ssl.SSLContext | None


def load(path: Path) -> Loaded:
    """Read the file and its certificates. Raises WebConfigError, also for passwords that cannot
    be checked because bcrypt is missing: the server never ignores them."""
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
    """The configuration in a file; reloads it when the file changes.

    It checks the files on connections and requests, at most once a second, and loads a new
    version once it has been unchanged for half a second, so that it never reads a file in the
    middle of a write. It logs and rejects a new version that is broken or that would remove TLS
    or the passwords: the old one stays in force. Raises WebConfigError when the first version is
    invalid.
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
        # Stamped before reading, so that a change in between is noticed.
        self._stamp = before + _stamp(self._loaded.config.files)[1:]
        self._candidate = self._stamp
        self._checked = clock()

    @property
    def in_force(self) -> Loaded:
        """The configuration loaded last; checks no file, so any thread may call it."""
        return self._loaded

    def current(self) -> Loaded:
        """The current configuration; for the event loop's thread."""
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
        # Valid or not, do not load this state of the files again.
        self._stamp = stamp
        try:
            loaded = load(self._path)
            self._refuse_opening(loaded.config)
        except Exception as error:  # the files may contain anything
            LOG.error("rejected the new web configuration, the old one stays in force: %s", error)
            return
        self._loaded = loaded
        self._stamp = stamp[:1] + _stamp(loaded.config.files)[1:]
        self._candidate = self._stamp
        LOG.warning("reloaded the web configuration %s", self._path)

    def _refuse_opening(self, new: WebConfig) -> None:
        """Reject a version without TLS or passwords: a truncated file looks like that."""
        old = self._loaded.config
        for what, had, has in (
            ("TLS", old.tls, new.tls),
            ("basic_auth_users", old.users, new.users),
        ):
            if had and not has:
                raise WebConfigError(f"{self._path}: {what} is gone; removing it needs a restart")


class TokenBucket:
    """``rate_limit``: a burst of requests, then one per interval."""

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
    Verdict.WRONG: plain(401, "User and password required.", _CHALLENGE),
    Verdict.TOO_MANY_FROM_HERE: plain(429, "Too many passwords are being checked.", _SOON),
    Verdict.TOO_MANY: plain(503, "Too many passwords are being checked.", _SOON),
}
_LIMITED = plain(429, "The web configuration's rate limit is exceeded.", _SOON)


class WebSecurity:
    """Applies a watched configuration to connections and requests, on the event loop's thread."""

    def __init__(
        self, config: WatchedConfig, workers: Workers, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._workers = workers
        self._passwords: Passwords | None = None
        self._clock = clock
        self._bucket: TokenBucket | None = None

    def tls(self) -> ssl.SSLContext | None:
        """The ssl context for a new connection."""
        return self._config.current().context

    def admits(self, peer_certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client with this verified certificate may connect."""
        return certificate_admitted(self._config.current().config.tls, peer_certificate)

    async def refusal(self, headers: Headers, address: str) -> Answer | None:
        """The answer to a refused request; None lets it pass."""
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
