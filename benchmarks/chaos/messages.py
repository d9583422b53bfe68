"""What a person was sent, and whether it was right: each fault once, and nothing else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

SILENT = ("dead-mans-switch", "nobody")
"""Receivers whose messages no person reads."""


@dataclass(frozen=True)
class Message:
    """One notification: the labels of the alerts that fire in it."""

    at: float
    """Seconds of the monotonic clock."""
    receiver: str
    firing: tuple[Mapping[str, str], ...]


class Receiver:
    """A web server in the place of every receiver; the path names which."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        messages = self.messages

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                firing = tuple(a["labels"] for a in body["alerts"] if a["status"] == "firing")
                messages.append(Message(time.monotonic(), body["receiver"], firing))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Receive no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass
class Reported:
    """What was sent about one fault."""

    began: float
    """When it was made, in seconds of the monotonic clock."""
    wanted: Sequence[Mapping[str, str]]
    """The labels of the alerts that a person must get, one message each."""
    at: dict[int, list[float]] = field(default_factory=dict)
    """When messages with the wanted alert came, by its place in ``wanted``."""

    @property
    def seconds(self) -> float | None:
        """From the fault to the last first message; None while one is missing."""
        if not self.wanted or len(self.at) < len(self.wanted):
            return None
        return max(times[0] for times in self.at.values()) - self.began

    @property
    def messages(self) -> int:
        """How many messages came about it."""
        return sum(len(times) for times in self.at.values())

    @property
    def wrong(self) -> list[str]:
        """What did not come exactly once."""
        counts = [len(self.at.get(place, ())) for place in range(len(self.wanted))]
        return [
            f"{dict(labels)} was sent {count} times"
            for labels, count in zip(self.wanted, counts, strict=True)
            if count != 1
        ]


def judge(messages: Sequence[Message], faults: Sequence[Reported]) -> list[Message]:
    """Sort the messages to the faults that they are about; return those that are about none.

    A message is about the newest fault that wants one of its alerts and had begun when it came.
    One that repeats what was sent counts again for its fault.
    """
    false = []
    for message in messages:
        if message.receiver in SILENT or not message.firing:
            continue
        for labels in message.firing:
            found = [
                (fault.began, fault, place)
                for fault in faults
                if fault.began <= message.at
                for place, wanted in enumerate(fault.wanted)
                if wanted.items() <= labels.items()
            ]
            if not found:
                false.append(message)
                continue
            _, fault, place = max(found, key=lambda each: each[0])
            fault.at.setdefault(place, []).append(message.at)
    return false


def longest_silence(messages: Sequence[Message], began: float, ended: float) -> float:
    """The longest time without a message to the dead man's switch, in seconds."""
    times = [began, *(m.at for m in messages if m.receiver == "dead-mans-switch"), ended]
    return max(later - earlier for earlier, later in pairwise(times))
