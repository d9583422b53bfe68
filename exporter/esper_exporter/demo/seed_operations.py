"""Operate on seeds (germinate, advance, blend, fossilize, prune) and emit their events."""

from __future__ import annotations

from typing import Any

from esper_exporter.demo.actions import Action
from esper_exporter.demo.blueprints import grow, parameters_of
from esper_exporter.demo.host_network import CHANNELS, HostTrainer
from esper_exporter.demo.seeds import (
    EMBARGO_EPOCHS,
    HEARD,
    LIVE,
    SPEED_EPOCHS,
    TARGETS,
    TEMPO_EPOCHS,
    Ramp,
    Seed,
    Slot,
    exploding,
    gate,
    vanishing,
)
from esper_exporter.demo.stream import Stream


class Kasmina:
    """The seeds of one environment's host during one episode."""

    def __init__(self, stream: Stream, trainer: HostTrainer, env_id: int, episode: int) -> None:
        self._stream = stream
        self._trainer = trainer
        self._env_id = env_id
        self._episode = episode
        self.slots = {slot.slot_id: slot for slot in trainer.slots}
        self.accuracy = 0.0
        """Validation accuracy (percent) of the last epoch, to compute the change."""
        self.germinated = self.pruned = self.fossilized = self.contributing = 0
        self.fossilized_params = 0

    # -- what the policy does ------------------------------------------------------------------

    def act(self, action: Action, epoch: int) -> bool:
        """Carry out a legal action; False if a gate refused."""
        slot = self.slots[action.slot]
        if action.op == "GERMINATE":
            self._germinate(slot, action, epoch)
        elif action.op == "SET_ALPHA_TARGET":
            assert slot.seed is not None
            slot.seed.target = TARGETS[action.alpha_target]
            slot.seed.ramp = _ramp(slot.seed, slot.seed.target, action)
            if slot.stage == "HOLDING":
                self._enter(slot, "BLENDING", epoch)
        elif action.op == "PRUNE":
            assert slot.seed is not None
            if slot.stage in HEARD and SPEED_EPOCHS[action.alpha_speed] > 1:
                slot.seed.ramp = _ramp(slot.seed, 0.0, action)
                slot.seed.fading = True
            else:
                self.prune(slot, epoch, "policy_prune", "policy")
        elif action.op in ("ADVANCE", "FOSSILIZE"):
            return self._advance(slot, epoch)
        return True

    def _germinate(self, slot: Slot, action: Action, epoch: int) -> None:
        module = grow(action.blueprint, CHANNELS, self._trainer.host.side_of(slot.slot_id))
        self.germinated += 1
        seed = Seed(
            seed_id=f"ep{self._episode}_env{self._env_id}_seed_{self.germinated}",
            blueprint=action.blueprint,
            style=action.style,
            tempo=action.tempo,
            target=TARGETS[action.alpha_target],
            module=module,
            params=parameters_of(module),
            accuracy_before=self.accuracy,
        )
        slot.seed = seed
        slot.enter("GERMINATED")
        self._trainer.add(seed)
        self._emit(
            "SEED_GERMINATED",
            slot,
            epoch,
            blueprint_id=seed.blueprint,
            params=seed.params,
            alpha=0.0,
            epochs_in_stage=0,
            blend_tempo_epochs=TEMPO_EPOCHS[seed.tempo],
            alpha_curve=seed.ramp.curve,
        )

    def _advance(self, slot: Slot, epoch: int) -> bool:
        seed = slot.seed
        assert seed is not None
        found = gate(slot)
        self._emit(
            "SEED_GATE_EVALUATED",
            slot,
            epoch,
            gate=found.name,
            passed=not found.failed,
            target_stage=found.target_stage,
            checks_passed=found.passed,
            checks_failed=found.failed,
        )
        if found.failed:
            return False
        if found.target_stage == "BLENDING":
            seed.ramp = Ramp(seed.alpha, seed.target)
        if found.target_stage == "FOSSILIZED":
            self._fossilize(slot, seed, epoch)
        else:
            self._enter(slot, found.target_stage, epoch)
        return True

    def _fossilize(self, slot: Slot, seed: Seed, epoch: int) -> None:
        self.fossilized += 1
        self.contributing += (seed.contribution or 0.0) > 0.0
        self.fossilized_params += seed.params
        self._enter(slot, "FOSSILIZED", epoch)
        self._emit(
            "SEED_FOSSILIZED",
            slot,
            epoch,
            blueprint_id=seed.blueprint,
            improvement=self.accuracy - seed.accuracy_before,
            params_added=seed.params,
            alpha=seed.alpha,
            epochs_total=seed.epochs_total,
            counterfactual=seed.contribution,
        )

    def prune(self, slot: Slot, epoch: int, reason: str, initiator: str) -> None:
        """Remove a live seed from its slot, and embargo the slot for a while."""
        seed = slot.seed
        assert seed is not None and slot.stage in LIVE
        self.pruned += 1
        self._trainer.remove(seed)
        self._enter(slot, "PRUNED", epoch)
        self._emit(
            "SEED_PRUNED",
            slot,
            epoch,
            reason=reason,
            blueprint_id=seed.blueprint,
            improvement=self.accuracy - seed.accuracy_before,
            auto_pruned=initiator != "policy",
            epochs_total=seed.epochs_total,
            counterfactual=seed.contribution,
            initiator=initiator,
        )
        slot.seed = None

    # -- what an epoch does --------------------------------------------------------------------

    def tick(self, epoch: int) -> float:
        """Advance alphas and embargoes one epoch; returns the sum of squared alpha changes."""
        shock = 0.0
        for slot in self.slots.values():
            slot.epochs_in_stage += 1
            seed = slot.seed
            if seed is None:
                self._recover(slot, epoch)
                continue
            seed.epochs_total += 1
            if slot.stage in ("BLENDING", "HOLDING") and not seed.ramp.done:
                before = seed.alpha
                seed.alpha = seed.ramp.step()
                shock += (seed.alpha - before) ** 2
            if seed.fading and seed.ramp.done:
                self.prune(slot, epoch, "policy_prune", "policy")
        return shock

    def _recover(self, slot: Slot, epoch: int) -> None:
        if slot.stage == "PRUNED":
            self._enter(slot, "EMBARGOED", epoch)
        elif slot.stage == "EMBARGOED" and slot.epochs_in_stage > EMBARGO_EPOCHS:
            self._enter(slot, "RESETTING", epoch)
        elif slot.stage == "RESETTING":
            self._enter(slot, "DORMANT", epoch)

    def present(self) -> list[Slot]:
        """Slots with a seed that changes the host's output."""
        return [slot for slot in self.slots.values() if slot.contributing]

    def growth(self) -> float:
        """Parameters of all seeds beside the host's."""
        grown = sum(slot.seed.params for slot in self.slots.values() if slot.seed is not None)
        return grown / self._trainer.params

    def telemetry(self) -> dict[str, dict[str, Any]]:
        """All occupied slots, as an epoch's event reports them."""
        return {
            slot_id: self._seed_telemetry(slot)
            for slot_id, slot in self.slots.items()
            if slot.stage != "DORMANT"
        }

    def _seed_telemetry(self, slot: Slot) -> dict[str, Any]:
        fields: dict[str, Any] = {"stage": slot.stage, "epochs_in_stage": slot.epochs_in_stage}
        if (seed := slot.seed) is not None:
            fields |= {
                "blueprint_id": seed.blueprint,
                "accuracy_delta": self.accuracy - seed.accuracy_before,
                "alpha": seed.alpha,
                "grad_ratio": seed.grad_ratio,
                "has_vanishing": vanishing(seed),
                "has_exploding": exploding(seed),
            }
            if seed.contribution is not None and seed.previous_contribution is not None:
                velocity = seed.contribution - seed.previous_contribution
                fields["contribution_velocity"] = velocity
        return fields

    def _enter(self, slot: Slot, stage: str, epoch: int) -> None:
        seed, stayed = slot.seed, slot.epochs_in_stage
        fields: dict[str, Any] = {}
        if seed is not None:
            fields = {
                "alpha": seed.alpha,
                "accuracy_delta": self.accuracy - seed.accuracy_before,
                "grad_ratio": seed.grad_ratio,
                "has_vanishing": vanishing(seed),
                "has_exploding": exploding(seed),
                "alpha_curve": seed.ramp.curve,
            }
        before = slot.enter(stage)
        self._emit(
            "SEED_STAGE_CHANGED",
            slot,
            epoch,
            from_stage=before,
            to_stage=stage,
            epochs_in_stage=stayed,
            **fields,
        )

    def _emit(self, name: str, slot: Slot, epoch: int, **data: Any) -> None:
        self._stream.record(
            name,
            {
                "slot_id": slot.slot_id,
                "env_id": self._env_id,
                "episode_idx": self._episode,
                **data,
            },
            slot_id=slot.slot_id,
            seed_id=slot.seed.seed_id if slot.seed is not None else None,
            epoch=epoch,
        )


def _ramp(seed: Seed, target: float, action: Action) -> Ramp:
    return Ramp(seed.alpha, target, SPEED_EPOCHS[action.alpha_speed], action.alpha_curve)
