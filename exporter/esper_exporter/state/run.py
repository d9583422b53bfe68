"""One run's state: the Sanctum snapshot, and beside it what the snapshot has no room for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from esper_exporter import health
from esper_exporter.contract.analytics import (
    AnalyticsSnapshotPayload,
    RewardComponentsTelemetry,
)
from esper_exporter.contract.events import Event
from esper_exporter.contract.simic import (
    EpisodeOutcomePayload,
    TrainingStartedPayload,
)
from esper_exporter.contract.tamiyo import TamiyoPolicyUpdatePayload
from esper_exporter.contract.tolaria import (
    TolariaEpochPayload,
)
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.state import counted
from esper_exporter.state.choices import DecisionCounts
from esper_exporter.state.counters import Distributions, Tallies, WindowMaximum
from esper_exporter.state.decision import MAX_DECISIONS, HeldDecision, expire_decisions
from esper_exporter.state.environment import EnvState
from esper_exporter.state.latches import Latches
from esper_exporter.state.layer_faults import LayerFaults
from esper_exporter.state.rank_steps import RankSteps
from esper_exporter.state.rewards import RewardComponents
from esper_exporter.state.snapshot import SanctumSnapshot
from esper_exporter.state.statistics import ObservationStats
from esper_exporter.state.torch_memory import MAX_DEVICES, Report, TorchMemory
from esper_exporter.state.unreported import unreported

GRAD_NORM_WINDOW_SECONDS = 300.0
MAX_ENVS = 1024
MAX_SLOTS = 256
EVENT_LOG_LENGTH = 100


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The labels on everything that belongs to a run."""

    run_id: str
    group_id: str
    rank: int

    def labels(self) -> tuple[tuple[str, str], ...]:
        return (
            ("run_id", self.run_id),
            ("group_id", self.group_id),
            ("rank", str(self.rank)),
        )


@dataclass(slots=True)
class Touched:
    """What the last event changed, so that only those rows are written."""

    policy: bool = False
    layers: bool = False
    observations: bool = False
    best_runs: bool = False
    summary: bool = False
    all_envs: bool = False
    envs: set[int] = field(default_factory=set)
    seeds: set[tuple[int, str]] = field(default_factory=set)
    attribution: set[int] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)

    def clear(self) -> None:
        self.policy = self.layers = self.observations = False
        self.best_runs = self.all_envs = False
        self.envs.clear()
        self.seeds.clear()
        self.attribution.clear()
        self.devices.clear()


class HeldUpdate(NamedTuple):
    """A policy update, the batch during which it came, and how many updates up to it overflowed."""

    event: Event
    payload: TamiyoPolicyUpdatePayload
    batch: int
    overflows_in_a_row: int


def _nothing_held(run: RunState) -> None:
    """Before the first update there is nothing to settle."""


@dataclass(slots=True)
class EpisodeTally:
    """Episode outcomes of the run, as the episode statistics need them."""

    lengths: deque[int] = field(default_factory=lambda: deque(maxlen=100))
    outcomes: deque[bool] = field(default_factory=lambda: deque(maxlen=20))
    successes: int = 0
    timeouts: int = 0
    germinations: int | None = None
    prunes: int | None = None
    fossilizations: int | None = None
    completions: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=100))


@dataclass(slots=True)
class LifecycleTally:
    """Seed lifespans and rates per episode, as the lifecycle statistics need them."""

    lifespans: deque[int] = field(default_factory=lambda: deque(maxlen=100))
    germination_rates: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    prune_rates: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    fossilize_rates: deque[float] = field(default_factory=lambda: deque(maxlen=20))


@dataclass(slots=True)
class RunState:
    """Everything known about one (run, group).

    Mutable, owned by one aggregator and read under the exporter's lock.
    """

    identity: RunIdentity
    bare_snapshot: SanctumSnapshot = field(default_factory=SanctumSnapshot)
    """`snapshot`, without the policy updates and decisions that are held."""
    active: bool = True
    ended_at: datetime | None = None
    ended_by: str | None = None
    """How its end was recognised, a value of `run_end.EndedBy`; None while it is active."""
    finished: bool = False
    """Whether it ended well. False while it is active, and where no event says how it ended."""
    failure: str | None = None
    """Why the run failed, None while it is active and when it finished."""
    given: bool = False
    given_id: object = None
    started: TrainingStartedPayload | None = None
    started_at: datetime | None = None
    last_event_at: datetime | None = None
    last_update_at: datetime | None = None
    rank_steps: RankSteps | None = None
    envs_with_success: set[int] = field(default_factory=set)
    """Environments for which an event reported whether their last action succeeded."""
    update: TamiyoPolicyUpdatePayload | None = None
    held_updates: list[HeldUpdate] = field(default_factory=list)
    """Policy updates that are not in the snapshot yet: it is read less often than they come."""
    settle_updates: Callable[[RunState], None] = _nothing_held
    entropy_in_nats: bool | None = None
    heads: tuple[str, ...] = HEADS
    """The policy's action heads: Tamiyo's eight, unless it named its own."""
    tallies: Tallies = field(default_factory=lambda: Tallies(counted.OF_RUN))
    distributions: Distributions = field(default_factory=lambda: Distributions(counted.OF_RUN))
    event_counts: dict[str, int] = field(default_factory=dict)
    """Events by name that are not in the counters yet."""
    decisions: DecisionCounts = field(default_factory=DecisionCounts)
    latches: Latches = field(default_factory=Latches)
    layer_faults: LayerFaults = field(default_factory=LayerFaults)
    touched: Touched = field(default_factory=Touched)
    episodes: EpisodeTally = field(default_factory=EpisodeTally)
    lifecycle: LifecycleTally = field(default_factory=LifecycleTally)
    pending: dict[int, HeldDecision] = field(default_factory=dict)
    """By environment, the decision whose TD advantage waits for the next value estimate."""
    last_decision: dict[int, HeldDecision] = field(default_factory=dict)
    held_decisions: deque[HeldDecision] = field(default_factory=lambda: deque(maxlen=MAX_DECISIONS))
    """The newest decisions that are not in the snapshot yet."""
    host_epochs: dict[int, TolariaEpochPayload] = field(default_factory=dict)
    last_rewards: dict[int, RewardComponentsTelemetry] = field(default_factory=dict)
    last_outcome: dict[int, EpisodeOutcomePayload] = field(default_factory=dict)
    last_episode: dict[int, EnvState] = field(default_factory=dict)
    """Environments as their last complete episode ended: the batch's end empties them, and a run
    that has ended begins no other."""
    recent_events: deque[tuple[Event, int]] = field(
        default_factory=lambda: deque(maxlen=EVENT_LOG_LENGTH)
    )
    latest: dict[str, object] = field(default_factory=dict)
    """Payloads of the last events, by the name that their row of the table of events has for it."""
    batch_stats: AnalyticsSnapshotPayload | None = None
    torch_memory: dict[str, TorchMemory] = field(default_factory=dict)
    checkpoint_at: datetime | None = None
    td_advantages: dict[int, float] = field(default_factory=dict)
    observed: bool = False
    slots_locked: bool = False
    batches_completed: int = 0
    attempt: int = 0
    attempt_ways: set[str] = field(default_factory=set)
    attempt_skipped: bool = False
    grad_norms: WindowMaximum = field(
        default_factory=lambda: WindowMaximum(GRAD_NORM_WINDOW_SECONDS)
    )
    largest_grad_norm: float | None = None
    """`grad_norm_window_max`, without the policy updates that are held."""
    seeds_reported: set[int] = field(default_factory=set)
    """Environments whose seeds were reported, and be it that there are none."""
    epoch_reported: bool = False
    outcome_reported: bool = False
    """Whether an episode's outcome reported success or failure."""
    overflows_in_a_row: int = 0
    """Policy updates up to the last one whose gradients overflowed under AMP."""
    after_update: TamiyoPolicyUpdatePayload | None = None
    """The last update of which the finished policy was measured too."""
    explosion_norm: float = health.GRAD_NORM_CRITICAL
    """Norm before clipping above which a gradient counts as exploding."""

    def __post_init__(self) -> None:
        self.tallies.before_reading = self.distributions.before_reading = self.settle
        self.bare_snapshot.tamiyo.entropy_coef = None
        self.bare_snapshot.observation_stats = unreported(ObservationStats)
        for head in self.heads:
            for counter, labels in counted.of_head(head):
                self.tallies.begin(counter, *labels)

    @property
    def snapshot(self) -> SanctumSnapshot:
        """The run as the Sanctum schema describes it, up to the last event."""
        self.settle()
        return self.bare_snapshot

    def settle(self) -> None:
        """Bring what is held into the snapshot, the counters and the histograms."""
        if self.event_counts:
            counts, self.event_counts = self.event_counts, {}
            for name, count in counts.items():
                self.tallies.add(counted.EVENTS, name, by=float(count))
        if self.held_updates:
            self.settle_updates(self)
        if self.held_decisions:
            recent, held = self.bare_snapshot.tamiyo.recent_decisions, self.held_decisions
            while held:
                decision = held.popleft()
                recent.insert(0, decision.snapshot())
                expire_decisions(recent, decision.event.timestamp)

    @property
    def grad_norm_window_max(self) -> float | None:
        """The largest gradient norm before clipping of the last five minutes."""
        self.settle()
        return self.largest_grad_norm

    @property
    def began(self) -> bool:
        """Whether the run's beginning is known: TRAINING_STARTED came, or a snapshot was given."""
        return self.started is not None or self.given

    @property
    def batches_done(self) -> bool:
        """Whether the run has done all the batches that it was to do."""
        snapshot = self.bare_snapshot
        if snapshot.max_batches > 0:
            return snapshot.current_batch >= snapshot.max_batches
        return self.batch_ended and 0 < snapshot.batch_total_episodes <= snapshot.current_episode

    @property
    def latched_last(self) -> bool:
        """Whether something was not finite in what the policy did last."""
        lasts = [
            latch.last
            for latch in (*self.latches.heads.values(), *self.latches.sources.values())
            if latch.last is not None
        ]
        return bool(lasts) and (self.last_update_at is None or max(lasts) >= self.last_update_at)

    @property
    def batch_ended(self) -> bool:
        """Whether a batch of episodes has ended."""
        return "batch" in self.latest or (self.given and bool(self.bare_snapshot.current_batch))

    @property
    def episode_ended(self) -> bool:
        """Whether an episode's outcome was reported."""
        measured = self.given and bool(self.bare_snapshot.episode_stats.length_max)
        return bool(self.episodes.lengths) or measured

    def has_seeds(self, env_id: int | None = None) -> bool:
        """Whether the seeds of an environment, or of any, were reported."""
        if self.given:
            return True
        return bool(self.seeds_reported) if env_id is None else env_id in self.seeds_reported

    def env(self, env_id: int) -> EnvState | None:
        """The environment's state, made on first sight; None beyond the bound on how many."""
        snapshot = self.bare_snapshot
        found = snapshot.envs.get(env_id)
        if found is None:
            if len(snapshot.envs) >= MAX_ENVS:
                return None
            found = snapshot.envs[env_id] = EnvState(
                env_id=env_id,
                host_params=snapshot.vitals.host_params,
                reward_mode=snapshot.reward_mode,
                reward_components=unreported(RewardComponents, env_id=env_id),
            )
        return found

    def see_memory(self, report: Report, device: str | None = None) -> None:
        """What an event reports of torch's memory on a device, by default the policy's."""
        if all(value is None for value in report.values()):
            return
        device = self.policy_device if device is None else device
        found = self.torch_memory.get(device)
        if found is None:
            if len(self.torch_memory) >= MAX_DEVICES:
                return
            found = self.torch_memory[device] = TorchMemory()
        found.see(report)
        self.touched.devices.add(device)

    @property
    def policy_device(self) -> str:
        """The CUDA device that the policy is on; ``cuda`` while that is not known."""
        named = self.started.policy_device if self.started is not None else ""
        return named if named.startswith("cuda") else "cuda"

    def begin_attempt(self, way: str) -> int:
        """The number of the policy update that an event is about.

        The same update may be reported in two ways (its own event's flags, an anomaly's text), so a
        new attempt begins only when the same way is taken again, or after `end_attempt`.
        """
        if way in self.attempt_ways:
            self.end_attempt()
        self.attempt_ways.add(way)
        return self.attempt

    def end_attempt(self) -> None:
        """The policy update is over; what comes now belongs to the next one."""
        self.attempt += 1
        self.attempt_ways.clear()
        self.attempt_skipped = False

    def count_skip(self, reason: str) -> None:
        """Count the current policy update as skipped, once."""
        if not self.attempt_skipped:
            self.attempt_skipped = True
            self.tallies.add(counted.UPDATES_SKIPPED, reason)

    def see_slots(self, slot_ids: Iterable[str]) -> None:
        """Slots learnt from events, while no TRAINING_STARTED has given the list."""
        if self.slots_locked:
            return
        known = self.bare_snapshot.slot_ids
        for slot_id in slot_ids:
            if slot_id and slot_id not in known and slot_id != "unknown" and len(known) < MAX_SLOTS:
                known.append(slot_id)
                known.sort()
                # Entropy in nats and the state of the slot head depend on how many there are.
                self.touched.policy |= self.bare_snapshot.tamiyo.ppo_data_received
