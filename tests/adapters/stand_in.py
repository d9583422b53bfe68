"""A stand-in for esper's trainer with the same seams: names, keywords, order of calls and events.

Written for the tests; it shares no line with the trainer.
"""

from __future__ import annotations

import enum
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from esper_exporter.contract.vocabulary import CHOICES_OF_HEAD, HEADS

ENVS, STEPS, FEATURES, SLOTS = 2, 5, 6, 3
CHOICES = {head: len(CHOICES_OF_HEAD.get(head, ())) or SLOTS for head in HEADS}

Kind = enum.Enum(  # type: ignore[misc]
    "Kind",
    "TRAINING_STARTED EPOCH_COMPLETED PPO_UPDATE_COMPLETED BATCH_EPOCH_COMPLETED"
    " NUMERICAL_INSTABILITY_DETECTED",
)


@dataclass
class Event:
    event_type: Any
    data: Any
    group_id: str = "default"
    event_id: str | None = None
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    seed_id: str | None = None
    slot_id: str | None = None
    epoch: int | None = None
    message: str = ""
    severity: str = "info"


def payload(**reported: Any) -> Any:
    """A dataclass with these fields."""
    return make_dataclass("Payload", [(name, Any) for name in reported])(**reported)


class Hub:
    """Calls its backends at once; the real one queues."""

    def __init__(self) -> None:
        self.backends: list[Any] = []
        self.events: list[Event] = []

    def add_backend(self, backend: Any) -> None:
        backend.start()
        self.backends.append(backend)

    def emit(self, kind: str, **reported: Any) -> None:
        event = Event(Kind[kind], payload(**reported), self.group)
        self.events.append(event)
        for backend in self.backends:
            backend.emit(event)

    group = "default"

    def close(self) -> None:
        for backend in self.backends:
            backend.close()


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, 8)
        self.dropout = nn.Dropout(0.5)
        for head in HEADS:
            setattr(self, f"{head}_head", nn.Linear(8, CHOICES[head]))
        self.state_value_head = nn.Linear(8, 1)
        self.q_head = nn.Linear(8, 1)

    def forward(self, states: Tensor) -> Tensor:
        return torch.tanh(self.body(states))


class Policy:
    def __init__(self) -> None:
        self.network = Network()
        self.fault: tuple[str, float] | None = None
        """A head, and what its log-probabilities are multiplied by."""

    def evaluate_actions(self, states: Tensor, actions: dict[str, Tensor]) -> Any:
        features = self.network(states)
        self.network.dropout(features)  # uses the random generator, as the real one does
        log_prob, entropy = {}, {}
        for head in HEADS:
            logits = getattr(self.network, f"{head}_head")(features)
            spread = torch.distributions.Categorical(logits=logits, validate_args=False)
            log_prob[head] = spread.log_prob(actions[head])
            entropy[head] = spread.entropy() / torch.log(torch.tensor(float(CHOICES[head])))
        if self.fault is not None and torch.is_grad_enabled():
            head, number = self.fault
            if head in log_prob:
                log_prob[head] = log_prob[head] * number
        return SimpleNamespace(
            log_prob=log_prob,
            entropy=entropy,
            value=self.network.state_value_head(features)[..., 0],
            q_value=self.network.q_head(features)[..., 0],
        )


class Normalizer:
    def denormalize(self, values: Tensor) -> Tensor:
        return values * 2.0


class TamiyoRolloutBuffer:
    def __init__(self) -> None:
        self.step_counts = [STEPS, STEPS - 2]
        self.fill(0)

    def fill(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        shape = (ENVS, STEPS)

        def some() -> Tensor:
            return torch.randn(shape, generator=draw)

        self.rewards, self.values, self.returns = some(), some(), some()
        self.advantages, self.td_errors = some(), some()
        self.states = torch.randn(*shape, FEATURES, generator=draw)
        self.actions = {
            head: torch.randint(0, CHOICES[head], shape, generator=draw) for head in HEADS
        }
        self.forced = torch.rand(shape, generator=draw) < 0.3
        self.op_masks = torch.ones(*shape, CHOICES["op"], dtype=torch.bool)
        self.slot_masks = torch.ones(*shape, SLOTS, dtype=torch.bool)

    def normalize_advantages(self) -> tuple[float, float, bool]:
        mean, std = self.advantages.mean(), self.advantages.std()
        self.advantages = (self.advantages - mean) / std
        return float(mean), float(std), False

    def get_batched_sequences(self, device: Any = "cpu") -> dict[str, Tensor]:
        counts = torch.tensor(self.step_counts)
        return {
            "states": self.states,
            "valid_mask": torch.arange(STEPS)[None, :] < counts[:, None],
            "forced_actions": self.forced,
            "effective_op_actions": self.actions["op"],
            **{f"{head}_actions": chosen for head, chosen in self.actions.items()},
        }


def compute_causal_masks(ops: Tensor) -> dict[str, Tensor]:
    masks = {head: ops == place % 3 for place, head in enumerate(HEADS)}
    masks["op"] = torch.ones_like(ops, dtype=torch.bool)
    return masks


def compute_ratio_metrics(
    *,
    log_probs: dict[str, Tensor],
    old_log_probs: dict[str, Tensor],
    head_masks: dict[str, Tensor],
    clip_ratio: float,
    target_kl: float | None = None,
) -> Any:
    ratios = {head: (log_probs[head] - old_log_probs[head]).exp() for head in HEADS}
    joint = torch.stack([ratio.log() for ratio in ratios.values()]).sum(0).exp()
    clipped = ((joint - 1).abs() > clip_ratio).float().mean()
    return SimpleNamespace(ratios=ratios, clip_fraction=clipped)


def compute_losses(
    *, ratios: dict[str, Tensor], forced_mask: Tensor, entropy: Any, values: Tensor, returns: Tensor
) -> Any:
    policy = torch.stack([ratio.mean() for ratio in ratios.values()]).sum()
    value = (values - returns).square().mean()
    return SimpleNamespace(policy_loss=policy, value_loss=value, total_loss=policy + value)


class PPOAgent:
    def __init__(self, epochs: int) -> None:
        torch.manual_seed(1)
        self.policy = Policy()
        self.buffer = TamiyoRolloutBuffer()
        self.value_normalizer = Normalizer()
        self.optimizer = torch.optim.Adam(self.policy.network.parameters(), 0.05)
        self.max_grad_norm, self.clip_ratio = 0.25, 0.2
        self.epochs = epochs
        self.raises = False
        self.samples = False
        """Whether an action is drawn first, which raises for logits that are not finite."""

    def update(self, clear_buffer: bool = True) -> dict[str, Any]:
        this = sys.modules["esper.simic.agent.ppo_agent"]
        self.buffer.normalize_advantages()
        data = self.buffer.get_batched_sequences(device="cpu")
        valid = data["valid_mask"]
        if self.samples:
            logits = self.policy.network.op_head(self.policy.network(data["states"][:1, 0]))
            torch.multinomial(logits.softmax(-1), 1)
        actions = {head: data[f"{head}_actions"] for head in HEADS}
        with torch.no_grad():
            anchor = self.policy.evaluate_actions(data["states"], actions)
        old = {head: anchor.log_prob[head].detach() for head in HEADS}
        reported: dict[str, Any] = defaultdict(list)
        performed = False
        for _ in range(self.epochs):
            result = self.policy.evaluate_actions(data["states"], actions)
            new = result.log_prob
            for head in HEADS:
                new[head] = new[head][valid]
                result.entropy[head] = result.entropy[head][valid]
            bad = [head for head in HEADS if not new[head].isfinite().all()]
            if bad:
                sources = [f"log_probs[{head}]: NaN detected" for head in bad]
                reported["finiteness_gate_failures"].append({"sources": sources})
                continue
            masks = {h: m[valid] for h, m in compute_causal_masks(actions["op"]).items()}
            before = {head: old[head][valid] for head in HEADS}
            ratios = this.compute_ratio_metrics(
                log_probs=new,
                old_log_probs=before,
                head_masks=masks,
                clip_ratio=self.clip_ratio,
                target_kl=None,
            )
            losses = this.compute_losses(
                ratios=ratios.ratios,
                forced_mask=data["forced_actions"][valid],
                entropy=result.entropy,
                values=result.value[valid],
                returns=self.buffer.returns[valid],
            )
            self.optimizer.zero_grad()
            losses.total_loss.backward()
            norm = nn.utils.clip_grad_norm_(
                (p for p in self.policy.network.parameters()), self.max_grad_norm
            )
            self.optimizer.step()
            performed = True
            reported["norm"].append(float(norm))
            reported["clip"].append(float(ratios.clip_fraction))
            reported["policy"].append(float(losses.policy_loss))
            reported["value"].append(float(losses.value_loss))
            if self.raises:
                raise ValueError("the gradient drift check")
        return {**reported, "ppo_update_performed": performed}


class Host(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.layer(inputs)
        return out


def process_train_batch(
    env_state: Any, inputs: Tensor, targets: Tensor, *, max_grad_norm: Any, loss_and_correct_fn: Any
) -> Any:
    env_state.host_optimizer.zero_grad()
    loss = loss_and_correct_fn(env_state.model(inputs), targets)
    scaler, optimizer = env_state.scaler, env_state.host_optimizer
    if scaler is None:
        loss.backward()
    else:
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(env_state.model.parameters(), max_grad_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return loss.detach(), None, len(targets), None


class VectorizedPPOTrainer:
    def __init__(self, hub: Hub, group: str, epochs: int, max_grad_norm: float | None) -> None:
        self.group_id, self.hub = group, hub
        self.agent = PPOAgent(epochs)
        self.max_grad_norm = max_grad_norm
        self.loss: Any = nn.functional.cross_entropy
        self.loss_scale: float | None = None
        self.scaler_enabled = True
        self.scales: dict[tuple[int, int], list[float]] = {}
        """By batch and environment: the scale at first, and after each batch of data."""
        self.losses: list[list[float]] = []

    def _run_train_pass(self, *, env_states: list[Any], epoch: int) -> Any:
        this = sys.modules["esper.simic.training.vectorized_trainer"]
        losses: list[list[float]] = [[] for _ in env_states]
        for number in range(3):
            for env, env_state in enumerate(env_states):
                draw = torch.Generator().manual_seed(epoch * 10 + number)
                inputs = torch.randn(8, 4, generator=draw)
                targets = torch.randint(0, 3, (8,), generator=draw)
                loss, *_ = this.process_train_batch(
                    env_state,
                    inputs,
                    targets,
                    max_grad_norm=self.max_grad_norm,
                    loss_and_correct_fn=self.loss,
                )
                losses[env].append(float(loss))
                if env_state.scaler is not None:
                    self.scales[self.batch, env].append(env_state.scaler.get_scale())
        self.losses = losses
        return [None] * len(env_states), 1.5

    def _run_batch(self, *, batch_idx: int, episodes_completed: int = 0) -> None:
        torch.manual_seed(batch_idx)
        self.batch = batch_idx
        env_states = []
        for env in range(ENVS):
            model = Host()
            optimizer = torch.optim.SGD(model.parameters(), 0.125)
            scaler = None
            if self.loss_scale is not None:
                scaler = torch.amp.GradScaler(
                    "cpu", self.loss_scale, growth_interval=2, enabled=self.scaler_enabled
                )
                self.scales[batch_idx, env] = [self.loss_scale]
            env_states.append(
                SimpleNamespace(model=model, host_optimizer=optimizer, stream=None, scaler=scaler)
            )
        for epoch in (1, 2):
            self._run_train_pass(env_states=env_states, epoch=epoch)
            for env in range(ENVS):
                self.hub.emit(
                    "EPOCH_COMPLETED",
                    env_id=env,
                    inner_epoch=epoch,
                    val_accuracy=50.0,
                    val_loss=1.0,
                )
        self.agent.buffer.fill(batch_idx)
        reported = self.agent.update()
        if reported["ppo_update_performed"]:
            norm = max(reported["norm"])
            self.hub.emit(
                "PPO_UPDATE_COMPLETED",
                policy_loss=sum(reported["policy"]) / len(reported["policy"]),
                value_loss=sum(reported["value"]) / len(reported["value"]),
                entropy=8.0,
                grad_norm=norm,
                pre_clip_grad_norm=norm,
                kl_divergence=0.0,
                clip_fraction=sum(reported["clip"]) / len(reported["clip"]),
                nan_grad_count=0,
                batch=batch_idx + 1,
                ppo_updates_count=1,
            )
        else:
            sources = reported["finiteness_gate_failures"][0]["sources"]
            self.hub.emit(
                "NUMERICAL_INSTABILITY_DETECTED",
                anomaly_type="ppo_finiteness_skip",
                episode=0,
                batch=0,
                inner_epoch=0,
                total_episodes=0,
                detail="Sources: " + "; ".join(sources),
            )
        self.hub.emit(
            "BATCH_EPOCH_COMPLETED",
            episodes_completed=batch_idx + 1,
            batch_idx=batch_idx + 1,
            avg_accuracy=50.0,
            avg_reward=1.0,
            total_episodes=9,
            n_envs=ENVS,
        )


def modules() -> dict[str, dict[str, Any]]:
    """The trainer's modules and what is looked up in them."""
    return {
        "esper": {},
        "esper.leyline": {},
        "esper.leyline.causal_masks": {"compute_causal_masks": compute_causal_masks},
        "esper.simic": {},
        "esper.simic.agent": {},
        "esper.simic.agent.ppo_agent": {
            "PPOAgent": PPOAgent,
            "compute_ratio_metrics": compute_ratio_metrics,
            "compute_losses": compute_losses,
        },
        "esper.simic.agent.rollout_buffer": {"TamiyoRolloutBuffer": TamiyoRolloutBuffer},
        "esper.simic.training": {},
        "esper.simic.training.vectorized_trainer": {
            "VectorizedPPOTrainer": VectorizedPPOTrainer,
            "process_train_batch": process_train_batch,
        },
    }


@contextmanager
def installed(without: str | None = None) -> Iterator[None]:
    """The stand-in's modules are importable; ``without`` leaves one name out."""
    made = {}
    for name, contents in modules().items():
        module = ModuleType(name)
        module.__path__ = []
        for key, thing in contents.items():
            if key != without:
                setattr(module, key, thing)
        made[name] = module
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
