"""The page's JSON: the state of all runs, and one run's recent history. Built on request only.

Documents: ``schema/state.v1.json`` and ``schema/history.v1.json``, served at ``/api/v1/schema``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from operator import is_not
from typing import Protocol, cast

import orjson

from esper_exporter import __version__, health
from esper_exporter.probes.samplers import Vitals
from esper_exporter.serve.page.event_log import line_json
from esper_exporter.serve.page.head_grid import TRAIL_COLUMNS, trail_json
from esper_exporter.serve.page.numbers import Json, short
from esper_exporter.serve.page.run_state import (
    detail_json,
    failure_of,
    run_key,
    state_of,
    summary_json,
)
from esper_exporter.serve.page.shared_answers import Found, KeptAnswer, Place, SharedAnswers
from esper_exporter.serve.page.system import gpu_reasons, system_json
from esper_exporter.serve.page.verdict import Reason, with_reasons
from esper_exporter.state.history import PLOTTED, RunHistory, UpdateRow
from esper_exporter.state.registry import Entry, RunRegistry
from esper_exporter.state.state_lock import StateLock

VERSION = 1
POLL_SECONDS = 1.0
DECISION_ROWS = 6
DECISION_SWAP_SECONDS = 5.0
LIVE = frozenset({"running", "stalled"})
EXPECTED = LIVE | {"waiting"}
"""States of runs of which more events are expected."""
NO_RUN = "-"
"""As a key: the runs in a line each, and none in full."""
WAIT_SECONDS = 1.0

UPDATE_COLUMNS = ("number", "time", "return", *PLOTTED)

LIMITS: Json = {
    "decisions": {
        "rows": DECISION_ROWS,
        "swap_seconds": DECISION_SWAP_SECONDS,
        "age_seconds": health.DECISION_MAX_AGE_SECONDS,
        "age_shares": health.DECISION_AGE_SHARES,
    },
    "policy": {
        "grad_norm": [health.GRAD_NORM_WARNING, health.GRAD_NORM_CRITICAL],
        "kl": [health.KL_WARNING, health.KL_CRITICAL],
        "clip_fraction": [health.CLIP_FRACTION_WARNING, health.CLIP_FRACTION_CRITICAL],
        "explained_variance": [
            health.EXPLAINED_VARIANCE_WARNING,
            health.EXPLAINED_VARIANCE_CRITICAL,
        ],
    },
    "head": {
        "entropy": [health.HEAD_ENTROPY_WARNING, health.HEAD_ENTROPY_CRITICAL],
        "gradient": [
            health.HEAD_GRAD_NORM_DEAD,
            health.HEAD_GRAD_NORM_LOW,
            health.HEAD_GRAD_NORM_HIGH,
            health.HEAD_GRAD_NORM_EXPLODING,
        ],
        "ratio": [*health.HEAD_RATIO_WARNING, *health.HEAD_RATIO_CRITICAL],
    },
}
"""Bounds that the page draws; the server decides the levels, not the page."""


class Busy(Exception):
    """The state lock was not free in time, and there is no earlier answer."""


class Replay(Protocol):
    """A recording being replayed into the exporter."""

    def state(self) -> Json:
        """Position, speed, and the places to seek to."""

    def version(self) -> object:
        """Changes when the state does."""

    @property
    def exhausted(self) -> bool:
        """Whether the recording has no more events."""

    def command(self, action: str, value: str) -> None:
        """Run a viewer's command. Raises ValueError for an invalid one."""


class PageApi:
    """Answers the page's requests from the runs of one process. Thread-safe.

    It holds ``lock`` while it builds an answer. ``clock`` returns Unix seconds.
    """

    def __init__(
        self,
        lock: StateLock,
        runs: RunRegistry,
        vitals: Vitals,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lock = lock
        self._runs = runs
        self._vitals = vitals
        self._clock = clock
        self._begun = clock()
        self._answers = SharedAnswers()
        self._made = 0
        self._revision = 0
        self._tag: object = None
        self._reports: tuple[object, ...] = (None, None, None)
        self.replay: Replay | None = None

    # -- state -----------------------------------------------------------------------------

    def now(self) -> float:
        """Unix seconds, so that a viewer knows how old an answer is."""
        return self._clock()

    def state(self, key: str, env_id: int | None, known: str, since: str | None = None) -> Found:
        """The answer's ETag and body; no body where ``known`` equals the ETag.

        ``key`` is the selected run (an unknown key selects the newest, `NO_RUN` none), ``env_id``
        the environment with an open drawer. With ``since``, the cursor of an earlier history, the
        answer contains what has happened since then. Raises Busy.
        """
        place, now = (key, env_id, since), self._clock()
        found = self._answers.at_once(place, known, now)
        if found is None:
            fresh = partial(self._fresh, place, known, now)
            kept = self._lock.read(fresh, lambda: self._answers.last(place), WAIT_SECONDS)
            found = None if kept is None else kept.found(known)
        if found is None:
            raise Busy
        return found

    def at_once(
        self, key: str, env_id: int | None, known: str, since: str | None = None
    ) -> Found | None:
        """`state` where another viewer has just had the answer, without waiting for the lock."""
        return self._answers.at_once((key, env_id, since), known, self._clock())

    def compressed(self, body: bytes) -> bytes:
        """An answer's body in gzip, compressed once for all who share it."""
        return self._answers.compressed(body)

    def _fresh(self, place: Place, known: str, now: float) -> KeptAnswer:
        """The current answer; with a body unless the viewer has it already."""
        tag, reports = self._current(now), self._vitals.reports()
        if tag != self._tag or any(map(is_not, reports, self._reports)):
            self._tag, self._reports = tag, reports
            self._revision += 1
        name = f'"{int(self._begun * 1000):x}-{self._revision:x}"'
        kept = self._answers.keep(place, name, now)
        if kept.body is None and known != name:
            self._made += 1
            kept.body = orjson.dumps(self._capture(*place, now), option=orjson.OPT_SERIALIZE_NUMPY)
        return kept

    def _current(self, now: float) -> object:
        """A tag of runs and replay: while it stays the same, so do they."""
        runs = [
            (
                entry.history.generation,
                entry.history.seq,
                entry.state.latches.lightings,
                entry.state.last_event_at,
                self._state(entry, now),
            )
            for entry in self._runs.everything()
        ]
        replay = None if self.replay is None else self.replay.version()
        return runs, replay

    def _state(self, entry: Entry, now: float) -> str:
        replay = self.replay
        return state_of(entry, now, replay is not None, replay is not None and replay.exhausted)

    def _over(self, entry: Entry, now: float) -> bool:
        return self._state(entry, now) not in EXPECTED

    def _capture(self, key: str, env_id: int | None, since: str | None, now: float) -> Json:
        entries = self._runs.everything()
        chosen = None if key == NO_RUN else self._chosen(entries, key)
        reports = self._vitals.reports()
        machine = gpu_reasons(reports[0], now)
        answer: Json = {
            "version": VERSION,
            "now": now,
            "exporter": {"version": __version__, "started": self._begun, "poll": POLL_SECONDS},
            "runs": [self._summary(entry, machine, now) for entry in entries],
            "run": None if chosen is None else detail_json(chosen, env_id, self._over(chosen, now)),
            "limits": LIMITS,
            "system": system_json(*reports),
            "replay": None if self.replay is None else self.replay.state(),
        }
        if since is not None and chosen is not None:
            answer["history"] = _history(run_key(chosen), chosen.history, since)
        return answer

    def _summary(self, entry: Entry, machine: Sequence[Reason], now: float) -> Json:
        """A run's line; what is wrong with the machine concerns the runs that go on."""
        state = self._state(entry, now)
        summary = summary_json(entry, state, now)
        if state in LIVE:
            summary["verdict"] = with_reasons(cast(Json, summary["verdict"]), machine)
        return summary

    @staticmethod
    def _chosen(entries: list[Entry], key: str) -> Entry | None:
        """The requested run, else the one to look at first: failed, latched, newest."""
        for entry in entries:
            if run_key(entry) == key:
                return entry
        if not entries:
            return None

        def urgency(entry: Entry) -> tuple[bool, bool, float]:
            run = entry.state
            troubled = failure_of(run) is not None or run.latches.lit() > 0
            begun = run.started_at.timestamp() if run.started_at else 0.0
            return run.active, troubled, begun

        # Among equals the first one wins, so that a page without a selected run does not jump.
        return max(entries, key=urgency)

    # -- history ---------------------------------------------------------------------------

    def history(self, key: str, since: str) -> bytes:
        """A run's history since the cursor of an earlier answer; the whole history without one."""

        def answer() -> Json:
            entry = self._chosen(self._runs.everything(), key)
            return (
                no_history(key) if entry is None else _history(run_key(entry), entry.history, since)
            )

        found = self._lock.read(answer, lambda: None, WAIT_SECONDS)
        if found is None:
            raise Busy
        return orjson.dumps(found)


def no_history(key: str) -> Json:
    """The history of a run that is not known."""
    return _answer(key, "0.0", True, [], [], [], [])


def _history(key: str, history: RunHistory, since: str) -> Json:
    generation, _, last_seen = since.partition(".")
    known = generation == str(history.generation) and last_seen.isdecimal()
    after = int(last_seen) if known else 0
    reset = not known or after > history.seq
    if reset:
        after = 0
    rows = takewhile(lambda row: row.seq > after, reversed(history.updates))
    marks = takewhile(lambda mark: mark.seq > after, reversed(history.marks))
    logged = [
        line
        for ring in (history.events, history.routine, history.faults)
        for line in takewhile(lambda line: line.seq > after, reversed(ring))
    ]
    logged.sort(key=lambda line: line.seq)
    trail = takewhile(lambda row: row.seq > after, reversed(history.trail))
    return _answer(
        key,
        f"{history.generation}.{history.seq}",
        reset,
        [_row(row) for row in rows][::-1],
        [[row.number, trail_json(row.heads)] for row in trail][::-1],
        [
            {"number": mark.number, "time": mark.time, "kind": mark.kind, "text": mark.text}
            for mark in marks
        ][::-1],
        [line_json(line) for line in logged],
    )


def _answer(
    key: str,
    cursor: str,
    reset: bool,
    rows: Sequence[object],
    trail: Sequence[object],
    marks: list[Json],
    events: list[Json],
) -> Json:
    return {
        "version": VERSION,
        "key": key,
        "cursor": cursor,
        "reset": reset,
        "updates": {"columns": UPDATE_COLUMNS, "rows": rows},
        "heads": {"columns": TRAIL_COLUMNS, "rows": trail},
        "marks": marks,
        "events": events,
    }


def _row(row: UpdateRow) -> list[object]:
    values = row.values or (None,) * len(PLOTTED)
    return [row.number, round(row.time, 3), short(row.mean_return), *map(short, values)]
