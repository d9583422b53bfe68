"""The browser page of a node: the runs of every process, from what each answers itself.

Each exporter that shares its page also answers the page's requests on a socket in its directory of
the share. So nothing is computed unless somebody looks, and a process computes only what is looked
at. Of a process that is gone the page shows what it answered last, or what it kept (at a latch, at
an end and every half minute), marked with how it ended.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
from isal import igzip

from esper_exporter import __version__
from esper_exporter.agent.page_file import PageRefused, open_owned
from esper_exporter.agent.page_view import RunKey
from esper_exporter.agent.share_directory import SOCKET, STATE
from esper_exporter.agent.tracked_process import TrackedProcess
from esper_exporter.serve.page.api import LIMITS, POLL_SECONDS, VERSION, Busy, Replay

Json = dict[str, Any]

TIMEOUT_SECONDS = 1.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Line:
    """A process of the node: where it answers, and how it ended (None: it lives)."""

    directory: Path
    reason: str | None
    """The reason of ``esper_run_failed``, empty for a good end, None while it lives."""
    unfinished: frozenset[RunKey]
    """Its runs that went on when it ended."""
    owners: frozenset[int]
    """The users whose files may lie in the directory."""


def line_of(process: TrackedProcess) -> Line:
    """What the page needs to know of a process."""
    reason = None if process.end is None else process.end.reason
    return Line(process.directory, reason, frozenset(process.unfinished), process.owners)


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


def ask(directory: Path, path: str, query: dict[str, str]) -> Any:
    """What a process answers, None where it does not."""
    connection = _Connection(directory / SOCKET)
    try:
        connection.request("GET", f"{path}?{urlencode(query)}")
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER_BYTES)
        return orjson.loads(body) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


class NodePage:
    """Answers the page's requests for all processes of a node. Thread-safe.

    ``lines`` returns the node's processes, newest last, ``system`` the JSON of the machine.
    """

    replay: Replay | None = None

    def __init__(
        self,
        lines: Callable[[], Sequence[Line]],
        system: Callable[[], Any],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lines = lines
        self._system = system
        self._clock = clock
        self._begun = clock()
        self._last: dict[Path, Json] = {}
        self._owner: dict[str, Path] = {}

    def now(self) -> float:
        """Unix seconds, so that a viewer knows how old an answer is."""
        return self._clock()

    def compressed(self, _name: str, body: bytes) -> bytes:
        """An answer's body in gzip."""
        return bytes(igzip.compress(body, 1))

    def state(self, key: str, env_id: int | None, known: str) -> tuple[str, bytes | None]:
        """The answer's ETag and body; no body where ``known`` equals the ETag."""
        query = {"run": key} | ({} if env_id is None else {"env": str(env_id)})
        documents = [(line, self._document(line, query)) for line in self._lines()]
        answer = self._merged(key, [(line, found) for line, found in documents if found])
        tag = f'"{blake2s(orjson.dumps(answer), digest_size=12).hexdigest()}"'
        if tag == known:
            return tag, None
        return tag, orjson.dumps({**answer, "now": self._clock()})

    def _document(self, line: Line, query: dict[str, str]) -> Json | None:
        """The state of one process: of the moment, or the last one of a process that is gone."""
        found = None if line.reason is not None else ask(line.directory, "/api/v1/state", query)
        if isinstance(found, dict) and isinstance(found.get("runs"), list):
            while len(self._last) >= MAX_REMEMBERED and line.directory not in self._last:
                self._last.pop(next(iter(self._last)))
            self._last[line.directory] = found
        if line.reason is not None and line.directory not in self._last:
            kept = _kept(line)
            if kept is not None:
                self._last[line.directory] = kept
        return self._last.get(line.directory)

    def _merged(self, key: str, documents: list[tuple[Line, Json]]) -> Json:
        runs: dict[str, Json] = {}
        details: dict[str, Json] = {}
        for line, document in documents:
            for run in document["runs"]:
                # The newest process of a run that was started again stands for it.
                runs[run["key"]] = _ended(run, line)
                self._owner[run["key"]] = line.directory
            detail = document.get("run")
            if detail is not None:
                details[detail["key"]] = detail
        chosen = (
            key
            if key in details
            else max(details, key=lambda each: _urgency(runs[each]), default="")
        )
        return {
            "version": VERSION,
            "exporter": {"version": __version__, "started": self._begun, "poll": POLL_SECONDS},
            "runs": list(runs.values()),
            "run": details.get(chosen),
            "limits": LIMITS,
            "system": self._system(),
            "replay": None,
        }

    def history(self, key: str, since: str) -> bytes:
        """A run's history since the cursor of an earlier answer. Raises Busy where its process
        does not answer."""
        owner = self._owner.get(key)
        if owner is None:
            self.state(key, None, "")
            owner = self._owner.get(key) or next(iter(self._owner.values()), None)
        found = (
            None if owner is None else ask(owner, "/api/v1/history", {"run": key, "since": since})
        )
        if found is None:
            raise Busy
        return orjson.dumps(found)


def _kept(line: Line) -> Json | None:
    """The state that a process kept for when it is gone."""
    try:
        handle = open_owned(line.directory / STATE, line.owners, MAX_ANSWER_BYTES)
        with open(handle, "rb") as file:
            found = orjson.loads(file.read())
    except (OSError, PageRefused, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("runs"), list) else None


def _ended(run: Json, line: Line) -> Json:
    """A run's summary, with the end that its process could not report."""
    key = (str(run["run_id"]), str(run["group"]), str(run["rank"]))
    if line.reason is None or key not in line.unfinished:
        return run
    return {**run, "state": "failed" if line.reason else "finished", "failure": line.reason or None}


def _urgency(run: Json) -> tuple[bool, bool, float]:
    return run["state"] == "failed", bool(run["latched"]), run["started"] or 0.0
