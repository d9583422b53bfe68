"""The browser page of a node: the runs of every process, from what each answers itself.

Each exporter that shares its page also answers the page's requests on a socket in its directory of
the share. So nothing is computed without a viewer, and a process computes only what is looked
at. Of a process that is gone the page shows what it answered last, or what it kept (at a latch, at
an end and every half minute), marked with how it ended.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2s
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson

from esper_exporter import __version__
from esper_exporter.agent.owned_file import PageRefused, open_owned
from esper_exporter.agent.page_view import RunKey
from esper_exporter.agent.share_directory import SOCKET, STATE
from esper_exporter.agent.tracked_process import TrackedProcess
from esper_exporter.serve.page.api import (
    LIMITS,
    LIVE,
    NO_RUN,
    POLL_SECONDS,
    VERSION,
    Busy,
    Replay,
    no_history,
)
from esper_exporter.serve.page.shared_answers import Found, SharedAnswers
from esper_exporter.serve.page.verdict import Reason, with_reasons

Json = dict[str, Any]

TIMEOUT_SECONDS = 1.0
SILENT_SECONDS = 10.0
"""A process that has not answered for this long is shown as stalled."""
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_REMEMBERED = 256
MAX_ASKED_AT_ONCE = 16
STATE_PATH, HISTORY_PATH = "/api/v1/state", "/api/v1/history"
UNNAMED = '""'
KEPT = "kept"
"""The ETag of a state that a process saved for after its end."""


FAILED = Reason("crit", "cross", "run", "failed", "events", "EsperRunFailed").json()
SILENT = Reason(
    "warn", "bars", "run", "its process does not answer", "events", "EsperTelemetryStale"
).json()


@dataclass(frozen=True, slots=True)
class Line:
    """A process of the node: its address, and how it ended (None: it lives)."""

    directory: Path
    reason: str | None
    """The reason of ``esper_run_failed``, empty for a good end, None while it lives."""
    unfinished: frozenset[RunKey]
    """Its runs that were active when it ended."""
    owners: frozenset[int]
    """The users whose files may lie in the directory."""


def line_of(process: TrackedProcess) -> Line:
    """The page's view of a process."""
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


def ask(directory: Path, path: str, query: dict[str, str], known: str = "") -> tuple[str, Any]:
    """Ask a process for its ETag and document.

    The document is None where it has not changed since the ETag ``known``; the ETag is empty where
    the process does not answer.
    """
    connection = _Connection(directory / SOCKET)
    try:
        headers = {"If-None-Match": known} if known else {}
        connection.request("GET", f"{path}?{urlencode(query)}", headers=headers)
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER_BYTES)
        if answer.status == 304:
            return known, None
        tag = answer.getheader("ETag") or UNNAMED
        return (tag, orjson.loads(body)) if answer.status == 200 else ("", None)
    except (OSError, http.client.HTTPException, ValueError):
        return "", None
    finally:
        connection.close()


@dataclass(slots=True)
class _Heard:
    """A process' answer: the ETag, the document, and when it was last current."""

    tag: str
    document: Json
    at: float


class NodePage:
    """Answers the page's requests for all processes of a node. Thread-safe.

    ``lines`` returns the node's processes, newest last, ``system`` the JSON of the machine,
    ``machine`` what is wrong with it.
    A poll asks each process for its runs in a line each, and one process for the selected run in
    full; a process whose state did not change since the last poll builds nothing.
    """

    replay: Replay | None = None

    def __init__(
        self,
        lines: Callable[[], Sequence[Line]],
        system: Callable[[], Any],
        clock: Callable[[], float] = time.time,
        machine: Callable[[float], Sequence[Reason]] = lambda _now: (),
    ) -> None:
        self._lines = lines
        self._system = system
        self._machine = machine
        self._clock = clock
        self._begun = clock()
        self._answers = SharedAnswers()
        self._asking = threading.Lock()
        self._heard: dict[tuple[Path, str], _Heard] = {}
        self._owner: dict[str, Line] = {}

    def now(self) -> float:
        """Unix seconds, so that a viewer can see an answer's age."""
        return self._clock()

    def compressed(self, body: bytes) -> bytes:
        """An answer's body in gzip, compressed once for all who share it."""
        return self._answers.compressed(body)

    def at_once(
        self, key: str, env_id: int | None, known: str, since: str | None = None
    ) -> Found | None:
        """`state` where another viewer has just had the answer, without asking any process."""
        return self._answers.at_once((key, env_id, since), known, self._clock())

    def state(self, key: str, env_id: int | None, known: str, since: str | None = None) -> Found:
        """The answer's ETag and body; no body where ``known`` equals the ETag."""
        place = key, env_id, since
        with self._asking:  # viewers that ask meanwhile share the answer
            found = self._answers.at_once(place, known, self._clock())
            if found is not None:
                return found
            answer, heard = self._gathered(key, env_id)
            tag = f'"{blake2s(orjson.dumps(answer), digest_size=12).hexdigest()}"'
            now = self._clock()
            kept = self._answers.keep(place, tag, now)
            if kept.body is None and known != tag:
                runs = [_aged(run, heard[run["key"]], now) for run in answer["runs"]]
                answer |= {"now": now, "runs": runs}
                if since is not None and answer["run"] is not None:
                    history = self._history(answer["run"]["key"], since)
                    answer |= {} if history is None else {"history": history}
                kept.body = orjson.dumps(answer)
            return kept.found(known) or (tag, kept.body)

    def _gathered(self, key: str, env_id: int | None) -> tuple[Json, dict[str, _Heard]]:
        """The state without what changes with time alone, and the source of each run's line."""
        lines = list(self._lines())
        with ThreadPoolExecutor(max(1, min(MAX_ASKED_AT_ONCE, len(lines)))) as pool:
            documents = list(pool.map(lambda line: self._document(line, {"run": NO_RUN}), lines))
        runs: dict[str, Json] = {}
        heard: dict[str, _Heard] = {}
        owner: dict[str, Line] = {}
        machine = self._machine(self._clock())
        for line, found in zip(lines, documents, strict=True):
            if found is None:
                continue
            for run in found.document["runs"]:
                # The newest process represents a run that was started again.
                shown = _ended(run, line, self._clock() - found.at)
                if shown["state"] in LIVE:
                    shown = {**shown, "verdict": with_reasons(shown["verdict"], machine)}
                runs[run["key"]] = shown
                heard[run["key"]] = found
                owner[run["key"]] = line
        self._owner = owner
        chosen = key
        if key not in runs:
            chosen = max(runs, key=lambda each: _urgency(runs[each]), default="")
        detail = None
        if chosen:
            query = {"run": chosen} | ({} if env_id is None else {"env": str(env_id)})
            full = self._document(owner[chosen], query)
            detail = None if full is None else full.document.get("run")
            if detail is not None and detail["key"] != chosen:
                detail = None  # what it kept is of another of its runs
        return {
            "version": VERSION,
            "exporter": {"version": __version__, "started": self._begun, "poll": POLL_SECONDS},
            "runs": list(runs.values()),
            "run": detail,
            "limits": LIMITS,
            "system": self._system(),
            "replay": None,
        }, heard

    def _document(self, line: Line, query: dict[str, str]) -> _Heard | None:
        """The state of one process: the current one, or its last where it does not answer."""
        place = line.directory, urlencode(query)
        before = self._heard.get(place)
        if line.reason is None:
            now = self._clock()
            tag, found = ask(line.directory, STATE_PATH, query, before.tag if before else "")
            if tag and found is None and before is not None:
                before.at = now
            elif isinstance(found, dict) and isinstance(found.get("runs"), list):
                while len(self._heard) >= MAX_REMEMBERED and place not in self._heard:
                    self._heard.pop(next(iter(self._heard)), None)
                before = self._heard[place] = _Heard(tag, found, now)
            return before
        if before is not None and before.tag is KEPT:
            return before
        kept = _kept(line)
        if kept is not None and _better(kept, before, query["run"]):
            before = self._heard[place] = _Heard(KEPT, kept, kept["now"])
        return before

    def history(self, key: str, since: str) -> bytes:
        """A run's history since the cursor of an earlier answer. Raises Busy where its process
        does not answer."""
        if key not in self._owner:
            with self._asking:
                self._gathered(key, None)
        owned = key if key in self._owner else next(iter(self._owner), "")
        found = self._history(owned, since) if owned else None
        if found is None:
            raise Busy
        return orjson.dumps(found)

    def _history(self, key: str, since: str) -> Json | None:
        """A run's history from its process, or from its saved state."""
        owner = self._owner.get(key)
        if owner is None:
            return no_history(key)
        if owner.reason is None:
            found = ask(owner.directory, HISTORY_PATH, {"run": key, "since": since})[1]
            return found if isinstance(found, dict) else None
        kept = (_kept(owner) or {}).get("history")
        nothing = {**no_history(key), "cursor": since or "0.0", "reset": not since}
        if not isinstance(kept, dict) or kept.get("key") != key or kept["cursor"] == since:
            return nothing
        return {**kept, "reset": True}


def _kept(line: Line) -> Json | None:
    """The state that a process saved for after its end."""
    try:
        handle = open_owned(line.directory / STATE, line.owners, MAX_ANSWER_BYTES)
        with open(handle, "rb") as file:
            found = orjson.loads(file.read())
    except (OSError, PageRefused, ValueError):
        return None
    good = isinstance(found, dict) and isinstance(found.get("runs"), list)
    return found if good and isinstance(found.get("now"), float) else None


def _better(kept: Json, before: _Heard | None, key: str) -> bool:
    """Whether a process' saved state is newer than its last answer, and has the wanted run."""
    if before is None:
        return True
    if before.document["now"] > kept["now"]:
        return False
    return key == NO_RUN or (kept.get("run") or {}).get("key") == key


def _ended(run: Json, line: Line, unheard: float) -> Json:
    """A run's summary, with the end that its process could not report; stalled where the process
    has not answered for `SILENT_SECONDS`."""
    key = (str(run["run_id"]), str(run["group"]), str(run["rank"]))
    if line.reason is None:
        silent = unheard > SILENT_SECONDS and run["state"] == "running"
        return _with_state(run, "stalled", None, SILENT) if silent else run
    if key not in line.unfinished:
        return run
    if not line.reason:
        return _with_state(run, "finished", None, None)
    reason = {**FAILED, "text": f"failed: {line.reason}"}
    return _with_state(run, "failed", line.reason, reason)


def _with_state(run: Json, state: str, failure: str | None, reason: Json | None) -> Json:
    """A run's summary in another state, with the reason first in its verdict."""
    verdict = run["verdict"]
    if reason is not None:
        count = "critical" if reason["level"] == "crit" else "warnings"
        word = verdict["word"] if state == "stalled" and verdict["critical"] else state
        verdict = {
            **verdict,
            "word": word,
            count: verdict[count] + 1,
            "reasons": [reason, *verdict["reasons"]],
            "checked": [],
        }
    elif not verdict["reasons"]:
        verdict = {**verdict, "word": state}
    return {**run, "state": state, "failure": failure, "verdict": verdict}


def _aged(run: Json, heard: _Heard, now: float) -> Json:
    """A run's summary with its silence as of ``now``: the answer that it is from may be older."""
    silence = run["silence"]
    if silence is None:
        return run
    return {**run, "silence": silence + max(0.0, now - heard.document["now"])}


def _urgency(run: Json) -> tuple[bool, bool, float]:
    return run["state"] == "failed", bool(run["latched"]), run["started"] or 0.0
