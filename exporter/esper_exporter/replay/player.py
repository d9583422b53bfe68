"""Play a recording with pause, speed and seek, for viewers in a browser.

The player holds the recording in memory and plays it on the thread that calls `Player.play`;
viewers' commands come from the server's threads. Seeking back forgets all runs and feeds the
recording again up to the new position.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from esper_exporter.replay.lines import STANDARD_INPUT, Damaged, read_lines
from esper_exporter.replay.pace import Feed, Pace, Recorded, event_time, parsed
from esper_exporter.replay.session import Outcome, Plan, Watcher
from esper_exporter.replay.stop import Stop

LOG = logging.getLogger("esper_exporter.replay")

LARGEST_BYTES = 128 * 2**20
"""Size on disk; a larger recording is replayed as it is read, without controls."""

MAX_MARKS = 2000

_UPDATES = (b'"PPO_UPDATE_COMPLETED"', b'"TAMIYO_POLICY_UPDATE"')
_ROLLBACKS = (b'"GOVERNOR_ROLLBACK"', b'"TOLARIA_ROLLBACK"')
_SKIP = b'"ppo_finiteness_'
_LATCHED = re.compile(rb'"head_(?:nan|inf)_detected": *\{[^}]*true')


@dataclass(frozen=True, slots=True)
class PlaceMark:
    """A place to seek to: ``line`` is the number of lines fed once the event has happened."""

    line: int
    kind: str
    text: str


def playable(plan: Plan) -> bool:
    """Whether a plan's files can be held in memory: they are complete and not too large."""
    if plan.follow or STANDARD_INPUT in plan.files:
        return False
    paths = [Path(name) for name in plan.files]
    return all(p.is_file() for p in paths) and sum(map(os.path.getsize, paths)) <= LARGEST_BYTES


def marks_of(lines: Sequence[bytes]) -> list[PlaceMark]:
    """Find every policy update, fault and rollback by searching the raw lines.

    During the migration of names the trainer writes an event under both; the first one counts.
    """
    found: list[PlaceMark] = []
    update: bytes | None = None
    rollback: bytes | None = None
    number = 0
    for place, line in enumerate(lines, 1):
        event = next((name for name in _UPDATES if name in line), None)
        if event is not None:
            update = update or event
            if event == update:
                number += 1
                found.append(PlaceMark(place, "update", f"update {number}"))
                if _LATCHED.search(line):
                    found.append(PlaceMark(place, "fault", f"not finite at update {number}"))
            continue
        if _SKIP in line:
            number += 1
            found.append(PlaceMark(place, "update", f"update {number}, skipped"))
            found.append(PlaceMark(place, "fault", f"not finite at update {number}"))
            continue
        event = next((name for name in _ROLLBACKS if name in line), None)
        if event is not None:
            rollback = rollback or event
            if event == rollback:
                found.append(PlaceMark(place, "rollback", f"rollback at update {number}"))
    if len(found) > MAX_MARKS:
        rare = [mark for mark in found if mark.kind != "update"][-MAX_MARKS // 2 :]
        updates = [mark for mark in found if mark.kind == "update"]
        step = math.ceil(len(updates) / (MAX_MARKS - len(rare)))
        found = sorted([*updates[::step], *rare], key=lambda mark: mark.line)
    return found


class Player:
    """Plays a plan's files. ``feed`` gets a line or its event, ``forget`` forgets every run,
    ``end`` ends the runs each time that the last line was fed.

    All three are called on the thread of `play` only.
    """

    def __init__(
        self,
        plan: Plan,
        feed: Feed,
        forget: Callable[[], object],
        end: Callable[[], object],
        stop: Stop,
        watcher: Watcher,
    ) -> None:
        self._feed = feed
        self._forget = forget
        self._end = end
        self._stop = stop
        self._watcher = watcher
        self._damaged: list[str] = []
        self._name = ", ".join(Path(name).name for name in plan.files)
        self._lines = self._load(plan)
        self._marks = marks_of(self._lines)
        self._marks_json = [
            {"line": mark.line, "kind": mark.kind, "text": mark.text} for mark in self._marks
        ]
        times = [t for t in map(event_time, (self._lines[:1] + self._lines[-1:])) if t is not None]
        self._length = times[-1] - times[0] if len(times) > 1 else None
        self._change = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        self._position = 0
        self._speed = plan.speed
        self._paused = False
        self._target: int | None = None
        self._commands = 0

    def _load(self, plan: Plan) -> list[bytes]:
        lines: list[bytes] = []
        for name in plan.files:
            if plan.until is not None and len(lines) >= plan.until:
                break
            reading = read_lines(name, self._stop, self._watcher.on_bytes)
            try:
                for line in reading:
                    lines.append(line)
                    if plan.until is not None and len(lines) >= plan.until:
                        break
            except Damaged as error:
                self._damaged.append(name)
                LOG.warning("%s: %s; replayed the lines before that", name, error)
            finally:
                reading.close()
        return lines

    # -- what viewers ask for, on any thread -----------------------------------------------

    @property
    def exhausted(self) -> bool:
        """Whether every line has been fed."""
        return self._position >= len(self._lines) and self._target is None

    def version(self) -> object:
        """Changes when the state does."""
        return self._commands, self._position, self._paused, self._speed

    def state(self) -> dict[str, object]:
        """Position, speed, and the places to seek to."""
        position = self._position
        last = self._lines[position - 1] if position else None
        return {
            "name": self._name,
            "paused": self._paused,
            "speed": self._speed,
            "position": position,
            "lines": len(self._lines),
            "time": None if last is None else event_time(last),
            "length": self._length,
            "exhausted": self.exhausted,
            "marks": self._marks_json,
        }

    def command(self, action: str, value: str) -> None:
        """``pause`` 1 or 0; ``speed`` a factor, 0 for full speed; ``seek`` ``line:N`` (so many
        lines fed), ``update:N`` or ``fault:N`` (the Nth). Raises ValueError."""
        with self._change:
            if action == "pause":
                if value not in ("0", "1"):
                    raise ValueError("pause is 1 or 0")
                self._paused = value == "1"
            elif action == "speed":
                try:
                    speed = float(value)
                except ValueError:
                    speed = math.nan
                if not math.isfinite(speed) or speed < 0:
                    raise ValueError("speed is a factor of recorded time; 0 is full speed")
                self._speed = speed
            elif action == "seek":
                self._target = self._place(value)
            else:
                raise ValueError("unknown command; known are pause, speed and seek")
            self._commands += 1
        with contextlib.suppress(BlockingIOError):  # already awake
            os.write(self._wake_write, b"x")

    def _place(self, value: str) -> int:
        kind, _, digits = value.partition(":")
        if not digits.isascii() or not digits.isdecimal() or len(digits) > 12:
            raise ValueError("seek is line:N, update:N or fault:N")
        number = int(digits)
        if kind == "line":
            return min(number, len(self._lines))
        if kind not in ("update", "fault"):
            raise ValueError("seek is line:N, update:N or fault:N")
        places = [mark.line for mark in self._marks if mark.kind == kind]
        if not 1 <= number <= len(places):
            raise ValueError(f"the recording has no {kind} {number}")
        return places[number - 1]

    # -- playing, on one thread ------------------------------------------------------------

    def play(self, at_end: Callable[[Outcome], object]) -> Outcome:
        """Play until a stop request. At the first end of the recording, call ``at_end``, then
        wait for a viewer's commands."""
        at_end_called = False
        while not self._stop.stopping:
            self._seek()
            if self._position >= len(self._lines):
                self._end()
                if not at_end_called:
                    at_end_called = True
                    at_end(self._outcome(stopped=False))
                self._wait(None)
            elif self._paused:
                self._wait(None)
            else:
                self._go_on()
        return self._outcome(stopped=not at_end_called)

    def _outcome(self, stopped: bool) -> Outcome:
        return Outcome(self._position, tuple(self._damaged), stopped)

    def _go_on(self) -> None:
        """Feed in recorded time until a command or the end."""
        commands, speed = self._commands, self._speed
        pace = Pace(speed, _Interrupted(self, commands)) if speed > 0 else None
        while self._position < len(self._lines):
            line = self._lines[self._position]
            event: Recorded = line
            if pace is not None:
                event = parsed(line)
                if isinstance(event, dict) and pace.hold(event):
                    return
            if self._stop.stopping or self._commands != commands:
                return
            self._take(line, event)
            self._watcher.on_line()

    def _take(self, line: bytes, event: Recorded) -> None:
        if line and not line.isspace():
            self._feed(event)
        self._position += 1

    def _seek(self) -> None:
        with self._change:
            target, self._target = self._target, None
        if target is None:
            return
        if target < self._position:
            self._forget()
            self._position = 0
        while self._position < target and not self._stop.stopping:
            self._take(self._lines[self._position], self._lines[self._position])

    def _wait(self, seconds: float | None) -> bool:
        """Wait for ``seconds``, a command, or a stop request; return whether to stop."""
        stopping = self._stop.wait(seconds, self._wake_read)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        return stopping

    def close(self) -> None:
        """Close the pipe; no command may follow."""
        os.close(self._wake_read)
        os.close(self._wake_write)


class _Interrupted:
    """A Waiter whose waits also end at a command."""

    def __init__(self, player: Player, commands: int) -> None:
        self._player = player
        self._commands = commands

    @property
    def stopping(self) -> bool:
        return self._player._stop.stopping or self._player._commands != self._commands

    def wait(self, seconds: float | None, readable: int | None = None) -> bool:
        self._player._wait(seconds)
        return self.stopping
