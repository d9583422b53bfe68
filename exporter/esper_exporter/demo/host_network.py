"""The host: a narrow convolutional network with slots for seeds, and its training."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from esper_exporter.demo.digits import CLASSES, SIDE, Digits
from esper_exporter.demo.seeds import Seed, Slot

CHANNELS = 4
STAGES = 2
BATCH = 64
BATCHES_PER_EPOCH = 4
LEARNING_RATE = 1.2e-2


def slot_names(count: int) -> tuple[str, ...]:
    """Names of the slots, in the order in which the data passes them."""
    return tuple(f"r0c{column}" for column in range(count))


class Host(nn.Module):
    """Convolution, slots, pooling, convolution, slots, pooling, a linear layer."""

    def __init__(self, slots: list[Slot]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(1 if stage == 0 else CHANNELS, CHANNELS, 3, padding=1)
            for stage in range(STAGES)
        )
        self.out = nn.Linear(CHANNELS * (SIDE // 2**STAGES) ** 2, CLASSES)
        self.stages = [
            [slot for place, slot in enumerate(slots) if place * STAGES // len(slots) == stage]
            for stage in range(STAGES)
        ]

    def forward(self, images: Tensor, without: frozenset[str] = frozenset()) -> Tensor:
        """Logits (N, 10); ``without`` names slots with disabled seeds."""
        x = images
        for convolution, slots in zip(self.convolutions, self.stages, strict=True):
            x = functional.relu(convolution(x))
            for slot in slots:
                if slot.seed is not None and slot.slot_id not in without:
                    x = _through(slot, slot.seed, x)
            x = functional.max_pool2d(x, 2)
        logits: Tensor = self.out(x.flatten(1))
        return logits

    def side_of(self, slot_id: str) -> int:
        """Height and width of the feature maps at a slot."""
        for stage, slots in enumerate(self.stages):
            if any(slot.slot_id == slot_id for slot in slots):
                return SIDE // 2**stage
        raise KeyError(slot_id)


def _through(slot: Slot, seed: Seed, x: Tensor) -> Tensor:
    """The feature maps behind a slot.

    While a seed trains in isolation it learns from the host's loss without changing the output: it
    adds zero in the forward pass, and its gradient in the backward pass.
    """
    if slot.contributing:
        change = seed.module(x)
        if seed.style == "LINEAR_MULTIPLY":
            return x * (1.0 + seed.alpha * change.tanh())
        if seed.style == "GATED_GATE":
            return x + seed.alpha * change * change.mean(1, keepdim=True).sigmoid()
        if seed.style == "SIGMOID_ADD":
            return x + seed.alpha * 2.0 * change * change.detach().abs().mean().neg().sigmoid()
        return x + seed.alpha * change
    if slot.stage == "TRAINING" and seed.params and torch.is_grad_enabled():
        change = seed.module(x.detach())
        return x + (change - change.detach())
    return x


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of training. Loss in nats, accuracy in percent, times in milliseconds."""

    loss: float
    accuracy: float
    grad_norm: float
    times_ms: dict[str, float]


class HostTrainer:
    """A host, its optimizer, and the parameters of its current seeds."""

    def __init__(self, slots: list[Slot], digits: Digits, generator: torch.Generator) -> None:
        self.slots = slots
        self.digits = digits
        self.host = Host(slots)
        self._generator = generator
        self.optimizer = torch.optim.Adam(self.host.parameters(), lr=LEARNING_RATE, foreach=True)
        self.params = sum(parameter.numel() for parameter in self.host.parameters())

    def add(self, seed: Seed) -> None:
        """Add a new seed's parameters to the optimizer."""
        if seed.params:
            group = {"params": list(seed.module.parameters()), "seed_id": seed.seed_id}
            self.optimizer.add_param_group(group)

    def remove(self, seed: Seed) -> None:
        """Remove a seed's parameters and their optimizer state."""
        groups = self.optimizer.param_groups
        groups[:] = [group for group in groups if group.get("seed_id") != seed.seed_id]
        for parameter in seed.module.parameters():
            self.optimizer.state.pop(parameter, None)

    def train(self) -> Epoch:
        """Train a few minibatches. The gradient norm is the host's, in the last one."""
        digits, losses, right = self.digits, [], 0
        clock = time.perf_counter
        times = dict.fromkeys(("data_transfer", "forward", "backward", "optimizer"), 0.0)
        begun = clock()
        for _ in range(BATCHES_PER_EPOCH):
            t0 = clock()
            chosen = torch.randint(len(digits.labels), (BATCH,), generator=self._generator)
            images, labels = digits.images[chosen], digits.labels[chosen]
            t1 = clock()
            logits = self.host(images)
            loss = functional.cross_entropy(logits, labels)
            t2 = clock()
            self.optimizer.zero_grad()
            loss.backward()
            t3 = clock()
            self.optimizer.step()
            t4 = clock()
            for phase, seconds in zip(times, (t1 - t0, t2 - t1, t3 - t2, t4 - t3), strict=True):
                times[phase] += seconds * 1000.0
            losses.append(loss.detach())
            right += int((logits.argmax(-1) == labels).sum())
        grad_norm = _grad_norm(self.host)
        for slot in self.slots:
            if slot.seed is not None and slot.seed.params:
                own = _grad_norm(slot.seed.module)
                slot.seed.grad_ratio = own / grad_norm if grad_norm > 0 else None
        times["epoch"] = (clock() - begun) * 1000.0
        return Epoch(
            float(torch.stack(losses).mean()),
            100.0 * right / (BATCHES_PER_EPOCH * BATCH),
            grad_norm,
            times,
        )

    @torch.no_grad()
    def validate(self, without: frozenset[str] = frozenset()) -> tuple[float, float]:
        """Accuracy (percent) and loss (nats) on the images held out."""
        logits = self.host(self.digits.val_images, without)
        labels = self.digits.val_labels
        accuracy = 100.0 * float((logits.argmax(-1) == labels).double().mean())
        return accuracy, float(functional.cross_entropy(logits, labels))


def _grad_norm(module: nn.Module) -> float:
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not gradients:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
