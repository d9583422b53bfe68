"""What a run did lately: the last updates, faults and events, kept for viewers.

Appends only, a few microseconds an event; nothing is formatted here. Every row carries a number
that grows by one a row over all three rings, so that a reader fetches only what is new to it.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

import msgspec
from msgspec.structs import astuple

from esper_exporter.contract.events import Event
from esper_exporter.contract.simic import AnomalyDetectedPayload
from esper_exporter.contract.tamiyo import HeadUpdatePayload, TamiyoPolicyUpdatePayload
from esper_exporter.contract.tolaria import TolariaRollbackPayload
from esper_exporter.state.latches import FINITENESS_ANOMALIES, Latch
from esper_exporter.state.run import RunState

UPDATES = 600
HELD_UPDATES = 32
"""Policy updates that are held before they are taken apart."""
EVENTS = 200
ROUTINE_EVENTS = 50
FAULT_EVENTS = 100
MARKS = 100
HEAD_WINDOW = 8
HEAD_TRAIL = 20

PLOTTED = (
    "policy_loss",
    "value_loss",
    "kl_divergence",
    "clip_fraction",
    "explained_variance",
    "entropy",
    "grad_norm",
    "pre_clip_grad_norm",
    "lr",
    "entropy_coef",
)
"""Fields of a policy update that are kept per update, in this order."""

ROUTINE = frozenset(
    {
        "TOLARIA_EPOCH_COMPLETED",
        "ANALYTICS_SNAPSHOT",
        "MORPHOLOGY_CAUSAL_LOG",
        "PHASE_PROFILE_COMPLETED",
        "COUNTERFACTUAL_MATRIX_COMPUTED",
        "SEED_GATE_EVALUATED",
        "ALLOCATOR_STATS",
        "INFRASTRUCTURE_SNAPSHOT",
    }
)
"""Types that come every step. They have a separate ring: they must not push a fault out."""

FOLLOWED = frozenset({"TOLARIA_ROLLBACK", "TAMIYO_POLICY_UPDATE", "TOLARIA_BATCH_COMPLETED"})
"""Types that change more than a ring."""

_plotted = itemgetter(*map(TamiyoPolicyUpdatePayload.__struct_fields__.index, PLOTTED))
_generations = itertools.count(int(time.time() * 1000))


@dataclass(slots=True)
class UpdateRow:
    """One policy update; ``values`` are None where it was skipped, ``mean_return`` the mean reward
    of the batch that followed it."""

    seq: int
    number: int
    time: float
    values: tuple[float | None, ...] | None
    mean_return: float | None = None


class Mark(NamedTuple):
    """A fault or a rollback, at the update during which it happened."""

    seq: int
    number: int
    time: float
    kind: str
    text: str
    of_head: bool = False


class HeadsRow(NamedTuple):
    """What one policy update reported of each head."""

    seq: int
    number: int
    update: TamiyoPolicyUpdatePayload

    @property
    def heads(self) -> Mapping[str, HeadUpdatePayload]:
        """By head; computed at a read."""
        return self.update.heads


class LoggedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as it came, the update during which it did, and the latches that it set."""

    seq: int
    number: int
    event: Event
    fault: str = ""


@dataclass(slots=True)
class LatchSeen:
    """At which policy updates a latch was set: first and last."""

    updates: int
    first: int
    last: int


@dataclass(slots=True)
class RunHistory:
    """The rings of one run. Its owner calls `see` under the lock that the run changes under."""

    generation: int = field(default_factory=lambda: next(_generations))
    seq: int = 0
    number: int = 0
    """Policy updates begun so far, skipped ones included; the last one's number."""
    arrived: float | None = None
    """When the last event came in, by this machine's clock, in Unix seconds."""
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=MARKS))
    events: deque[LoggedEvent] = field(default_factory=lambda: deque(maxlen=EVENTS))
    routine: deque[LoggedEvent] = field(default_factory=lambda: deque(maxlen=ROUTINE_EVENTS))
    faults: deque[LoggedEvent] = field(default_factory=lambda: deque(maxlen=FAULT_EVENTS))
    """What set a latch, skipped an update or rolled back: no other event may push it out."""
    latches: dict[str, LatchSeen] = field(default_factory=dict)
    """By ``head/kind`` or by source."""
    _lightings: int = 0
    _skip_attempt: int = -1
    _held: list[tuple[int, int, Event]] = field(default_factory=list)
    """Updates with the row's number and their own: they come more often than they are read."""
    _updates: deque[UpdateRow] = field(default_factory=lambda: deque(maxlen=UPDATES))
    _heads: deque[TamiyoPolicyUpdatePayload] = field(
        default_factory=lambda: deque(maxlen=HEAD_WINDOW)
    )
    _trail: deque[HeadsRow] = field(default_factory=lambda: deque(maxlen=HEAD_TRAIL))

    @property
    def updates(self) -> deque[UpdateRow]:
        """The last updates, by what is plotted of them."""
        self._settle()
        return self._updates

    @property
    def heads(self) -> deque[TamiyoPolicyUpdatePayload]:
        """The last updates whole, for what is judged over several of them."""
        self._settle()
        return self._heads

    @property
    def trail(self) -> deque[HeadsRow]:
        """What the last updates reported of each head."""
        self._settle()
        return self._trail

    def _settle(self) -> None:
        held, self._held = self._held, []
        for seq, number, event in held:
            data, when = event.data, event.timestamp.timestamp()
            self._updates.append(UpdateRow(seq, number, when, _plotted(astuple(data))))
            self._heads.append(data)
            self._trail.append(HeadsRow(seq, number, data))

    def see(self, event: Event, run: RunState, now: float) -> None:
        """Keep what an event that was just applied to the run changed. ``now`` is Unix time."""
        self.arrived = now
        self.seq = seq = self.seq + 1
        kind = event.type
        lit = run.latches.lightings != self._lightings
        skipped = run.attempt_skipped and run.attempt != self._skip_attempt
        if kind in ROUTINE and not lit and not skipped:
            self.routine.append(LoggedEvent(seq, self.number, event))
            return
        data = event.data
        if kind not in ROUTINE and kind not in FOLLOWED and not lit and not skipped:
            ring = self.faults if _nonfinite(data) else self.events
            ring.append(LoggedEvent(seq, self.number, event))
            return
        ring = self.routine if kind in ROUTINE else self.events
        if kind == "TOLARIA_ROLLBACK" or _nonfinite(data):
            ring = self.faults
        if kind == "TAMIYO_POLICY_UPDATE" and not data.skipped:
            self._begin(data.ppo_update_idx)
            self._held.append((seq, self.number, event))
            if len(self._held) >= HELD_UPDATES:
                self._settle()
        elif skipped:
            self._skip_attempt = run.attempt
            self._begin(None)
            self.updates.append(UpdateRow(seq, self.number, event.timestamp.timestamp(), None))
        elif kind == "TOLARIA_BATCH_COMPLETED" and self.updates:
            last = self.updates[-1]
            if last.mean_return is None:
                last.mean_return = data.avg_reward
                last.seq = seq
        elif kind == "TOLARIA_ROLLBACK" and isinstance(data, TolariaRollbackPayload):
            text = f"rollback of env {data.env_id}"
            when = event.timestamp.timestamp()
            self.marks.append(Mark(seq, self.number, when, "rollback", text))
        fault = ""
        if lit:
            fault = self._latched(run, event.timestamp.timestamp(), kind)
            ring = self.faults
        ring.append(LoggedEvent(seq, self.number, event, fault))

    def _begin(self, reported: int | None) -> None:
        """The next update. A run resumed from a checkpoint starts at the trainer's number."""
        first = not self.number
        self.number += 1
        if first and reported is not None and reported > self.number:
            self.number = reported

    def _latched(self, run: RunState, when: float, kind: str) -> str:
        """A latch was set, or set again: remember at which update, and mark it. Returns which."""
        self._lightings = run.latches.lightings
        # What a probe reports at once belongs to the update that has not ended yet.
        pending = kind != "TAMIYO_POLICY_UPDATE" and not run.attempt_skipped
        number = self.number + 1 if pending else self.number
        fresh = []
        for name, latch in _named(run):
            if not latch.lit:
                continue
            seen = self.latches.get(name)
            if seen is None:
                self.latches[name] = LatchSeen(latch.updates, number, number)
                fresh.append(name)
            elif seen.updates != latch.updates:
                seen.updates, seen.last = latch.updates, number
                fresh.append(name)
        heads = [name for name in fresh if "/" in name]
        text = ", ".join(_in_words(name) for name in heads or fresh)
        last = self.marks[-1] if self.marks else None
        if last is not None and (last.kind, last.number) == ("fault", number):
            # The same update reported twice: a head is more specific than a source.
            if heads and not last.of_head:
                self.marks[-1] = Mark(self.seq, number, last.time, "fault", text, True)
        elif fresh:
            self.marks.append(Mark(self.seq, number, when, "fault", text, bool(heads)))
        return text


def _nonfinite(data: object) -> bool:
    return isinstance(data, AnomalyDetectedPayload) and data.anomaly_type in FINITENESS_ANOMALIES


def _named(run: RunState) -> list[tuple[str, Latch]]:
    heads = [(f"{head}/{kind}", latch) for (head, kind), latch in run.latches.heads.items()]
    return heads + list(run.latches.sources.items())


def _in_words(name: str) -> str:
    head, slash, kind = name.rpartition("/")  # a head's name may have a slash
    return f"{head} {'NaN' if kind == 'nan' else 'Inf'}" if slash else name
