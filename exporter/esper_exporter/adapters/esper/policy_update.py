"""Measures PPOAgent.update from outside: rollout, data, evaluations, ratios, losses, gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from esper_exporter.adapters.esper import host_scales
from esper_exporter.adapters.esper.after_update import Anchor, measure_after
from esper_exporter.adapters.esper.context import Context, Guard
from esper_exporter.adapters.esper.head_outputs import HeadOutputs
from esper_exporter.adapters.esper.host_scales import HostScales
from esper_exporter.adapters.esper.join import Joining, Measured
from esper_exporter.adapters.esper.seams import Seam, Seams
from esper_exporter.contract.vocabulary import HEADS, head_max_choices
from esper_exporter.probes.torch import minibatch
from esper_exporter.probes.torch.probe import PolicyProbe
from esper_exporter.probes.torch.update import PolicyUpdate

AGENT = "esper.simic.agent.ppo_agent"
BUFFER = "esper.simic.agent.rollout_buffer"

BATCH = Seam(
    "batch",
    "esper.simic.training.vectorized_trainer",
    "VectorizedPPOTrainer._run_batch",
    ("batch_idx",),
)
UPDATE = Seam("update", AGENT, "PPOAgent.update")
ROLLOUT = Seam("rollout", BUFFER, "TamiyoRolloutBuffer.normalize_advantages")
DATA = Seam("data", BUFFER, "TamiyoRolloutBuffer.get_batched_sequences")
RATIOS = Seam(
    "ratios",
    AGENT,
    "compute_ratio_metrics",
    ("log_probs", "old_log_probs", "head_masks", "clip_ratio"),
)
LOSSES = Seam("losses", AGENT, "compute_losses", ("forced_mask", "entropy"))

_NOT_SEEN = frozenset(
    {"action_heads", "forced_step_ratio", "decision_density", "usable_actor_timesteps"}
)
"""Fields that need the legal choices, which no seam shows; the trainer reports them."""

_MODULES = {"value": "state_value_head", "q": "q_head"}


class _Sink:
    """Receives the probe's events: updates wait for the trainer's own, it emits faults at once."""

    def __init__(self, exporter: Any, joining: Joining) -> None:
        self._exporter = exporter
        self._joining = joining

    def emit(self, event: Any) -> None:
        """An event of the probe."""
        if event["event_type"] == "TAMIYO_POLICY_UPDATE":
            reported = {
                name: value
                for name, value in event["data"].items()
                if name not in _NOT_SEEN and not name.endswith("_learnable_fraction")
            }
            self._joining.update((event["group_id"], reported["batch"]), Measured(reported))
        elif event["data"].get("anomaly_type") == "update_incomplete":
            data = event["data"]
            self._joining.ended((event["group_id"], data["batch"]), data["detail"])
        else:
            if "phase_times_ms" in event["data"] or "batch_window" in event["data"]:
                event = {**event, "data": {**COMPILED_NOTHING, **event["data"]}}
            self._exporter.emit(event)

    def probe_failed(self) -> None:
        """Count the error that is being handled."""
        self._exporter.probe_failed()


COMPILED_NOTHING = {
    "compile_graph_breaks": 0,
    "compile_recompilations": 0,
    "compile_cache_hits": 0,
    "compile_cache_misses": 0,
    "dynamo_guard_failures": 0,
}
"""Counts of a process that has compiled nothing: a measurement, where a trainer could compile."""


class _Update:
    """One update of one agent while it runs."""

    def __init__(
        self, agent: Any, probe: PolicyProbe, measured: PolicyUpdate, logits: HeadOutputs
    ) -> None:
        self.agent = agent
        self.probe = probe
        self.measured = measured
        self.valid: Tensor | None = None
        self.data: Mapping[str, Tensor] = {}
        self.violations: list[Tensor] = []
        self.anchor: Anchor | None = None
        self.logits = logits


class PolicySeams:
    """The seams of a policy update, for all agents of the process."""

    def __init__(
        self,
        exporter: Any,
        joining: Joining,
        context: Context,
        scales: HostScales,
        after_update_every: int,
    ) -> None:
        self._exporter = exporter
        self._joining = joining
        self._context = context
        self._scales = scales
        self._every = after_update_every
        self._sink = _Sink(exporter, joining)
        self._guard = Guard(exporter.probe_failed)
        self._probes: WeakKeyDictionary[Any, PolicyProbe] = WeakKeyDictionary()
        self._updates = 0
        self.phases: list[Any] = []
        """The probes' clocks, to which the host's times go."""

    def install(self, seams: Seams) -> None:
        """Install all of them."""
        self._seams = seams
        self._joining.wait_with(self.arrive)
        seams.put(BATCH, self._batch)
        seams.put(UPDATE, self._update)
        seams.put(ROLLOUT, lambda original: self._before(original, self._see_rollout))
        seams.put(DATA, lambda original: self._after(original, self._see_data))
        seams.put(RATIOS, lambda original: self._before(original, self._see_ratios))
        seams.put(LOSSES, lambda original: self._after(original, self._see_losses))

    def arrive(self) -> None:
        """Deliver what is still being copied from a device. On any thread."""
        for probe in list(self._probes.values()):
            self._guard(probe.flush)()

    # -- the replacements ------------------------------------------------------------------------

    def _batch(self, original: Any) -> Any:
        context, key = self._context, self._guard(_key_of)

        def _run_batch(trainer: Any, *args: Any, **more: Any) -> Any:
            batch = more.get("batch_idx")
            outer = context.key
            if batch is not None:
                context.key = key(trainer, batch) or outer
            try:
                return original(trainer, *args, **more)
            finally:
                context.key = outer

        return _run_batch

    def _update(self, original: Any) -> Any:
        def update(agent: Any, *args: Any, **more: Any) -> Any:
            running = self._guard(self._begin)(agent) if self._seams.open else None
            if running is None:
                return original(agent, *args, **more)
            context, policy = self._context, agent.policy
            mine, inner = vars(policy).get("evaluate_actions"), policy.evaluate_actions
            policy.evaluate_actions = self._evaluation(inner, running)
            context.update = running
            try:
                with running.logits.watched(compiled=False):
                    result = original(agent, *args, **more)
            except BaseException as error:
                context.update = None
                self._guard(self._see_logits)(running)
                self._guard(running.probe.end)(running.measured, error)
                raise
            finally:
                context.update = None
                if mine is None:
                    vars(policy).pop("evaluate_actions", None)
                else:
                    policy.evaluate_actions = mine
            self._guard(self._finish)(running, result, inner)
            return result

        return update

    def _evaluation(self, inner: Any, running: _Update) -> Any:
        look = self._guard(self._see_evaluation)

        def evaluate_actions(*args: Any, **more: Any) -> Any:
            training = torch.is_grad_enabled()
            with running.logits.watched(compiled=True):
                result = inner(*args, **more)
            look(running, training, (args, more), result)
            return result

        return evaluate_actions

    def _before(self, original: Any, see: Callable[..., None]) -> Any:
        look = self._guard(see)

        def replaced(*args: Any, **more: Any) -> Any:
            if self._context.update is not None:
                look(self._context.update, args, more)
            return original(*args, **more)

        return replaced

    def _after(self, original: Any, see: Callable[..., None]) -> Any:
        look = self._guard(see)

        def replaced(*args: Any, **more: Any) -> Any:
            result = original(*args, **more)
            if self._context.update is not None:
                look(self._context.update, args, more, result)
            return result

        return replaced

    # -- what is seen ----------------------------------------------------------------------------

    def _begin(self, agent: Any) -> _Update | None:
        key = self._context.key
        if key is None:
            return None
        group, batch = key
        probe = self._probes.get(agent)
        if probe is None:
            probe = self._probes[agent] = self._probe(agent, group)
            self.phases[:] = [probe]
        logits = HeadOutputs(agent.policy.network)
        return _Update(agent, probe, probe.update(batch=batch).begin(), logits)

    def _probe(self, agent: Any, group: str) -> PolicyProbe:
        network = getattr(agent.policy.network, "_orig_mod", agent.policy.network)
        modules = {}
        for head in (*HEADS, *_MODULES):
            module = getattr(network, _MODULES.get(head, f"{head}_head"), None)
            if module is not None and any(p.requires_grad for p in module.parameters()):
                modules[head] = module
        buffer = agent.buffer
        heads = {
            head: int(masks.shape[-1])
            if (masks := getattr(buffer, f"{head}_masks", None)) is not None
            else head_max_choices(head)
            for head in HEADS
        }
        return PolicyProbe(
            network,
            self._sink,
            heads=heads,
            head_modules=modules,
            optimizer=getattr(agent, "optimizer", None),
            max_grad_norm=float(agent.max_grad_norm) if agent.max_grad_norm else None,
            clip_ratio=float(agent.clip_ratio),
            every=1,
            exact_norms=True,
            group_id=group,
        )

    def _see_rollout(self, running: _Update, args: Any, _more: Any) -> None:
        buffer, normalizer = args[0], running.agent.value_normalizer
        rows = [(env, count) for env, count in enumerate(buffer.step_counts) if count]

        def valid_of(name: str) -> Tensor:
            return torch.cat([getattr(buffer, name)[env, :count] for env, count in rows])

        running.measured.rollout(
            values=normalizer.denormalize(valid_of("values")),
            returns=valid_of("returns"),
            raw_advantages=valid_of("advantages"),
            td_errors=valid_of("td_errors"),
        )
        valid = sum(count for _, count in rows)
        most = buffer.rewards.shape[0] * buffer.rewards.shape[1]
        running.measured.set(valid_sample_ratio=valid / most)

    def _see_data(self, running: _Update, _args: Any, _more: Any, data: Any) -> None:
        running.data, running.valid = data, data["valid_mask"]
        running.measured.rollout(
            actions={head: data[f"{head}_actions"] for head in HEADS}, valid=running.valid
        )

    def _see_evaluation(self, running: _Update, training: bool, call: Any, result: Any) -> None:
        if not training and running.anchor is None:
            # Kept by reference: update() puts other tensors under these names, not into them.
            running.anchor = (*call, dict(result.log_prob))
        source = "log_probs" if training else "ref_log_probs"
        found: list[tuple[str, str | None, str]] = []
        valid = running.valid
        if valid is None or running.probe.on_device:
            return
        rows = torch.stack([result.log_prob[head].reshape(-1) for head in HEADS])
        seen = valid.reshape(-1)
        if not torch.isfinite(torch.where(seen, rows, 0.0).sum()):
            self._see_logits(running)
            nan, inf = minibatch.nonfinite(rows, len(HEADS), seen)
            for place, head in enumerate(HEADS):
                infinite = head in running.measured.sources.infinite
                found += [(source, head, "nan")] if nan[place] and not infinite else []
                found += [(source, head, "inf")] if inf[place] else []
        for name, values in (("values", result.value), ("q_values", result.q_value)):
            if values is None:
                continue
            mine = torch.where(valid, values, 0.0)
            if not torch.isfinite(mine.sum()):
                found += [(name, None, "nan")] if mine.isnan().any() else []
                found += [(name, None, "inf")] if mine.isinf().any() else []
        running.measured.findings.add(found)

    def _see_logits(self, running: _Update) -> None:
        """What the heads gave, where the log-probabilities are not finite. Waits for the device:
        the trainer, which has seen it too, has already waited."""
        running.measured.logits(running.logits.last)
        if infinite := running.measured.sources.infinite:
            self._joining.infinite((running.probe.group_id, running.measured.batch), infinite)

    def _see_ratios(self, running: _Update, _args: Any, more: Any) -> None:
        new, old, masks = more["log_probs"], more["old_log_probs"], more["head_masks"]
        running.measured.minibatch(log_probs=new, old_log_probs=old, active=masks)
        joint = torch.stack([new[h].detach().double() - old[h].double() for h in HEADS]).sum(0)
        running.violations.append((joint.expm1().abs() > more["clip_ratio"]).sum())

    def _see_losses(self, running: _Update, _args: Any, more: Any, result: Any) -> None:
        free = ~more["forced_mask"]
        share = (more["entropy"]["op"].detach().double() * free).sum() / free.sum().clamp(min=1)
        running.measured.set(policy_determinism=1.0 - share)
        running.measured.minibatch(
            policy_loss=result.policy_loss.detach(), value_loss=result.value_loss.detach()
        )

    def _finish(self, running: _Update, result: Any, inner: Any) -> None:
        measured = running.measured
        if not result:
            # The buffer was empty: there was no update.
            running.probe.drop(measured)
            return
        if running.violations:
            measured.set(trust_region_violations=torch.stack(running.violations).sum())
        if running.probe.on_device and result.get("finiteness_gate_failures"):
            self._see_logits(running)
        infinite = running.measured.sources.infinite
        named = _named_by_gate(result)
        reported = [each for each in named if each[2] != "nan" or each[1] not in infinite]
        measured.findings.add(reported)
        performed = bool(result.get("ppo_update_performed", True))
        if performed and self._every and self._updates % self._every == 0:
            self._guard(measure_after)(
                running.measured,
                running.anchor,
                running.data,
                running.valid,
                inner,
                running.agent.clip_ratio,
            )
        self._updates += 1
        if performed:
            self._guard(self._see_scales)(running)
        running.probe.end(measured, None)
        if not performed:
            key = (running.probe.group_id, measured.batch)
            self._joining.ended(key, "skipped")

    def _see_scales(self, running: _Update) -> None:
        """The hosts' scalers since the last update that has an event: the policy has none."""
        taken = self._scales.take(next(running.agent.policy.network.parameters()).device)
        if taken is not None:
            scales, counts = taken
            running.measured.set_from(scales, lambda values: host_scales.fields(values, counts))


def _named_by_gate(result: Mapping[str, Any]) -> list[tuple[str, str | None, str]]:
    """The sources that the trainer's finiteness gate names, in the words of latches."""
    from esper_exporter.state.latches import parse_finiteness_detail

    texts = [
        text
        for failure in result.get("finiteness_gate_failures") or ()
        for text in failure.get("sources", ())
    ]
    return [
        (finding.source, finding.head, kind)
        for text in texts
        for finding in parse_finiteness_detail(str(text))
        for kind in finding.kinds
    ]


def _key_of(trainer: Any, batch: Any) -> tuple[str, int]:
    """Group and batch, from 1."""
    return str(getattr(trainer, "group_id", "default")), int(batch) + 1
