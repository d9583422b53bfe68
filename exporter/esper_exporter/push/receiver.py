"""Sends requests to a receiver of remote write, and says what became of each."""

from __future__ import annotations

import email.utils
import http.client
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import IO, Any, Literal

from esper_exporter import __version__
from esper_exporter.push.client_config import ClientConfig, ClientConfigError

SECONDS = 10.0
ANSWER_BYTES = 512
"""How much of an answer is read: enough of the reason for the log."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request: ``sent``, ``refused`` for good, or worth another try (``failed``),
    after ``wait`` seconds at least. ``reason`` is a label value, ``detail`` for the log."""

    kind: Literal["sent", "refused", "failed"]
    reason: str = ""
    detail: str = ""
    wait: float = 0.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, whose answer says nothing of the samples."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: Any, newurl: str,
    ) -> None:  # fmt: skip
        return None


class Receiver:
    """One address. Proxies are those of the environment (``https_proxy``, ``no_proxy``)."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config

    def send(self, body: bytes, seconds: float = SECONDS) -> Outcome:
        """POST a request; every wait for the network takes at most ``seconds``. Never raises for
        what the network or the receiver does."""
        try:
            request = urllib.request.Request(
                self._config.url,
                body,
                {
                    "Content-Type": "application/x-protobuf",
                    "Content-Encoding": "snappy",
                    "User-Agent": f"esper-exporter/{__version__}",
                    "X-Prometheus-Remote-Write-Version": "0.1.0",
                    **self._config.authorization(),
                },
            )
            handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
            if self._config.tls:
                handlers.append(urllib.request.HTTPSHandler(context=self._config.context()))
            opener = urllib.request.build_opener(*handlers)
        except ClientConfigError as problem:
            return Outcome("failed", "configuration", str(problem))
        try:
            with opener.open(request, timeout=max(seconds, 0.05)) as answer:
                answer.read(ANSWER_BYTES)
            return Outcome("sent")
        except urllib.error.HTTPError as error:
            with error:
                return _outcome(error)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, TimeoutError):
                return Outcome("failed", "timeout", "no answer in time")
            if isinstance(cause, ssl.SSLError):
                return Outcome("failed", "tls", str(cause))
            return Outcome("failed", "connection", str(cause) or type(cause).__name__)


def _outcome(error: urllib.error.HTTPError) -> Outcome:
    try:
        text = error.read(ANSWER_BYTES).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        text = ""
    detail = f"{error.code} {error.reason}" + (f": {text}" if text else "")
    if error.code == 429 or error.code >= 500:
        reason = "throttled" if error.code == 429 else "server"
        return Outcome("failed", reason, detail, retry_after(error.headers))
    # Remote write 1.0: any other answer is for good.
    return Outcome("refused", "refused", detail)


def retry_after(headers: Message) -> float:
    """Seconds to wait by a Retry-After header, in seconds or as a date; 0 without one."""
    text = (headers.get("Retry-After") or "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
