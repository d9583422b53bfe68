"""One environment: a host that trains, a policy that grows and prunes it, and the rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from esper_exporter import PolicyProbe
from esper_exporter.contract.vocabulary import OPS
from esper_exporter.demo.actions import Action, legal_slots
from esper_exporter.demo.contributions import counterfactual, shapley
from esper_exporter.demo.digits import Digits
from esper_exporter.demo.governor import Governor, Panic
from esper_exporter.demo.host_network import HostTrainer, slot_names
from esper_exporter.demo.observation import Features, observe
from esper_exporter.demo.profile import Profile
from esper_exporter.demo.reward_function import ROLLBACK_PENALTY, Step, components
from esper_exporter.demo.seed_operations import Kasmina
from esper_exporter.demo.seeds import LIVE, Slot
from esper_exporter.demo.stream import Stream

STABLE_EPOCHS = 2
"""Epochs a host trains alone before seeds may germinate."""
REWARD_MODE = "shaped"


@dataclass(frozen=True, slots=True)
class Legal:
    """Legal operations, and the legal slots for each."""

    ops: tuple[bool, ...]
    slots: tuple[tuple[bool, ...], ...]


class Environment:
    """A host with slots; `begin` makes a new one, `step` acts on it and trains it an epoch."""

    def __init__(
        self,
        env_id: int,
        n_slots: int,
        horizon: int,
        digits: Digits,
        stream: Stream,
        probe: PolicyProbe,
        profile: Profile,
        seed: int,
    ) -> None:
        self.env_id = env_id
        self._slot_ids = slot_names(n_slots)
        self._horizon = horizon
        self._digits = digits
        self._stream = stream
        self._probe = probe
        self._profile = profile
        self._generator = torch.Generator().manual_seed(seed)
        self.rollbacks = 0
        self.begin(episode=env_id)

    def begin(self, episode: int) -> None:
        """Begin an episode: a new host, every slot empty."""
        self.episode = episode
        slots = [Slot(slot_id) for slot_id in self._slot_ids]
        self.trainer = HostTrainer(slots, self._digits, self._generator)
        self.seeds = Kasmina(self._stream, self.trainer, self.env_id, episode)
        self._governor = Governor(self.trainer)
        self.epoch = 0
        self.accuracy = self._accuracy_before = 0.0
        self.loss, self._grad_norm = 0.0, 0.0
        self.episode_return = 0.0
        self.accuracies: list[float] = []
        self.op_counts = dict.fromkeys(OPS, 0)

    def observe(self) -> Features:
        """The policy's current observation."""
        return observe(
            self.accuracy,
            self._accuracy_before,
            self.loss,
            self._grad_norm,
            self.epoch / self._horizon,
            self.seeds.growth(),
            self.trainer.slots,
        )

    def legal(self) -> Legal:
        """The currently legal operations."""
        may_germinate = self.epoch >= STABLE_EPOCHS
        slots = tuple(legal_slots(op, self.trainer.slots, may_germinate) for op in OPS)
        return Legal(tuple(any(row) for row in slots), slots)

    def step(self, action: Action) -> dict[str, Any]:
        """Act, train an epoch, and return the reward's components."""
        seeds, trainer = self.seeds, self.trainer
        self.epoch += 1
        self.op_counts[action.op] += 1
        fossilizing = seeds.slots[action.slot].seed if action.op == "FOSSILIZE" else None
        success = seeds.act(action, self.epoch)
        shock = seeds.tick(self.epoch)
        with self._profile.time("train"):
            trained = trainer.train()
        before = self._accuracy_before = self.accuracy
        with self._profile.time("val"):
            self.accuracy, self.loss = trainer.validate()
        self._grad_norm = trained.grad_norm
        panic = self._governor.judge(self.loss)
        if panic is not None:
            self._roll_back(panic)
        with self._profile.time("val"):
            self._measure_contributions()
        seeds.accuracy = self.accuracy
        self.accuracies.append(self.accuracy)
        self._probe.host_epoch(
            self.env_id,
            self.epoch,
            val_accuracy=self.accuracy,
            val_loss=self.loss,
            train_loss=trained.loss,
            train_accuracy=trained.accuracy,
            lr=trainer.optimizer.param_groups[0]["lr"],
            grad_norm_pre_clip=trained.grad_norm,
            times_ms=trained.times_ms,
            seeds=seeds.telemetry(),
            episode_idx=self.episode,
        )
        if self.epoch == STABLE_EPOCHS:
            self._emit_stable()
        present = seeds.present()
        judged = components(
            Step(
                op=action.op,
                success=success,
                advanced=action.op == "ADVANCE" and success,
                accuracy=self.accuracy,
                accuracy_before=before,
                contributions=[s.seed.contribution or 0.0 for s in present if s.seed is not None],
                growth=seeds.growth(),
                alpha_shock=shock,
                fossilized_contribution=fossilizing.contribution
                if fossilizing is not None and success
                else None,
                fossilized=seeds.fossilized,
                contributing=seeds.contributing,
                active=sum(slot.stage in LIVE for slot in trainer.slots),
                rolled_back=panic is not None,
                epoch=self.epoch,
            )
        )
        self.episode_return += float(judged["total_reward"] or 0.0)
        return judged

    def end(self, batch: int) -> None:
        """End the episode: emit each seed's contribution and the outcome."""
        seeds, stream = self.seeds, self._stream
        place = {"env_id": self.env_id, "episode_idx": self.episode}
        matrix = counterfactual(self.trainer, [slot.slot_id for slot in seeds.present()])
        if matrix.slot_ids:
            stream.record(
                "COUNTERFACTUAL_MATRIX_COMPUTED",
                {
                    **place,
                    "slot_ids": matrix.slot_ids,
                    "configs": [
                        {"seed_mask": mask, "accuracy": accuracy}
                        for mask, accuracy in matrix.accuracies.items()
                    ],
                    "strategy": matrix.strategy,
                    "compute_time_ms": matrix.milliseconds,
                },
            )
        if values := shapley(matrix):
            stream.record(
                "ANALYTICS_SNAPSHOT",
                {
                    **place,
                    "kind": "shapley_computed",
                    "shapley_values": values,
                    "num_slots": len(values),
                    "batch": batch,
                },
            )
        steps = zip(self.accuracies, self.accuracies[1:], strict=False)
        falls = sum(max(0.0, before - after) for before, after in steps)
        stream.record(
            "EPISODE_OUTCOME",
            {
                **place,
                "final_accuracy": self.accuracy,
                "param_ratio": 1.0 + seeds.growth(),
                "num_fossilized": seeds.fossilized,
                "num_contributing_fossilized": seeds.contributing,
                "episode_reward": self.episode_return,
                # 1 where accuracy never fell; every percent point per epoch halves it.
                "stability_score": 0.5 ** (falls / len(self.accuracies)),
                "reward_mode": REWARD_MODE,
                "episode_length": self.epoch,
                "outcome_type": "timeout",
                "germinate_count": seeds.germinated,
                "prune_count": seeds.pruned,
                "fossilize_count": seeds.fossilized,
            },
        )

    def slot_states(self) -> dict[str, str]:
        """Stage and alpha of every slot, for a decision's record."""
        return {
            slot.slot_id: slot.stage.capitalize()
            + ("" if slot.seed is None else f" {100 * slot.seed.alpha:.0f}%")
            for slot in self.trainer.slots
        }

    def _measure_contributions(self) -> None:
        for slot in self.seeds.present():
            seed = slot.seed
            assert seed is not None
            seed.previous_contribution = seed.contribution
            without, _ = self.trainer.validate(frozenset({slot.slot_id}))
            seed.contribution = self.accuracy - without

    def _roll_back(self, panic: Panic) -> None:
        self.rollbacks += 1
        for slot in self.trainer.slots:
            if slot.stage in LIVE:
                self.seeds.prune(slot, self.epoch, panic.reason, "governor")
        self._governor.restore()
        self._stream.record(
            "TOLARIA_ROLLBACK",
            {
                "env_id": self.env_id,
                "device": "cpu",
                "reason": panic.reason,
                "panic_reason": panic.reason,
                "episode_idx": self.episode,
                "loss_at_panic": panic.loss,
                "loss_threshold": panic.threshold,
                "consecutive_panics": 1,
                "raw_penalty": -ROLLBACK_PENALTY,
            },
            severity="warning",
        )
        self.accuracy, self.loss = self.trainer.validate()

    def _emit_stable(self) -> None:
        self._stream.record(
            "TAMIYO_INITIATED",
            {
                "env_id": self.env_id,
                "epoch": self.epoch,
                "stable_count": STABLE_EPOCHS,
                "stabilization_epochs": STABLE_EPOCHS,
                "val_loss": self.loss,
                "episode_idx": self.episode,
            },
            epoch=self.epoch,
        )
