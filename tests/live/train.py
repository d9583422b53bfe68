"""Trains the real esper-lite on synthetic images: a program of its own, for the live tests.

usage: ESPER_LITE_SRC=CHECKOUT python train.py OUT [--attach] [--k K] [--rounds N] [--fault F] …
It writes OUT/result.json (hash of weights and random state, error), OUT/pages.json (a page for each
event of an update or a host's epoch) and OUT/update<N>.pt (tensors as the trainer had them).
It holds no code of the trainer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

ENVS, EPOCHS = 2, 10


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--attach", action="store_true")
    parser.add_argument("--bare", action="store_true", help="attach as a user does: no pages kept")
    parser.add_argument("--dump", action="store_true")
    parser.add_argument("--k", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument(
        "--fault",
        default="",
        help="logits:tempo:nan, grad:tempo:inf, weights:op:nan, loss:value:inf",
    )
    return parser.parse_args()


def without_torchvision() -> None:
    """The trainer imports torchvision for real images only; here there are none."""
    made = {name: ModuleType(name) for name in ("torchvision", "torchvision.datasets")}
    made["torchvision.transforms"] = ModuleType("torchvision.transforms")

    class Missing:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("there are no real images here")

    for name in ("CIFAR10", "CIFAR100", "MNIST"):
        setattr(made["torchvision.datasets"], name, Missing)
    for name in ("Compose", "RandomCrop", "RandomHorizontalFlip", "ToTensor", "Normalize"):
        setattr(made["torchvision.transforms"], name, Missing)
    for name in ("datasets", "transforms"):
        setattr(made["torchvision"], name, made[f"torchvision.{name}"])
    sys.modules.update(made)


def images(count: int, prototypes: torch.Tensor, draw: torch.Generator) -> TensorDataset:
    labels = torch.randint(0, 10, (count,), generator=draw)
    noise = torch.randn(count, 3, 32, 32, generator=draw)
    return TensorDataset(prototypes[labels] + 2.0 * noise, labels)


def synthetic(*_: Any, **__: Any) -> tuple[TensorDataset, TensorDataset]:
    draw = torch.Generator().manual_seed(7)
    small = torch.randn(10, 3, 8, 8, generator=draw)
    prototypes = torch.nn.functional.interpolate(small, size=(32, 32))
    return images(512, prototypes, draw), images(256, prototypes, draw)


class Dump:
    """Copies what the trainer's functions are given, for a computation of the tests' own."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.current: dict[str, Any] | None = None

    def keep(self, kind: str, value: Any) -> None:
        if self.current is not None:
            self.current.setdefault(kind, []).append(copied(value))

    def install(self) -> None:
        from esper.simic.agent import ppo_agent
        from esper.simic.agent.rollout_buffer import TamiyoRolloutBuffer as Buffer

        dump, ratios, losses = self, ppo_agent.compute_ratio_metrics, ppo_agent.compute_losses
        update, sequences = ppo_agent.PPOAgent.update, Buffer.get_batched_sequences
        normalize, clip = Buffer.normalize_advantages, torch.nn.utils.clip_grad_norm_

        def compute_ratio_metrics(**given: Any) -> Any:
            names = ("log_probs", "old_log_probs", "head_masks", "clip_ratio")
            dump.keep("ratios", {name: given[name] for name in names})
            return ratios(**given)

        def compute_losses(**given: Any) -> Any:
            dump.keep("losses", {name: given[name] for name in ("forced_mask", "entropy")})
            return losses(**given)

        def normalize_advantages(buffer: Any) -> Any:
            agent = dump.current and dump.current["agent"]
            if agent is not None:
                rows = [(env, n) for env, n in enumerate(buffer.step_counts)]

                def valid(name: str) -> torch.Tensor:
                    return torch.cat([getattr(buffer, name)[env, :n] for env, n in rows])

                dump.keep(
                    "rollout",
                    {
                        "values": agent.value_normalizer.denormalize(valid("values")),
                        "returns": valid("returns"),
                        "td_errors": valid("td_errors"),
                        "counts": list(buffer.step_counts),
                        "most": buffer.rewards.numel(),
                    },
                )
            return normalize(buffer)

        def get_batched_sequences(buffer: Any, *args: Any, **more: Any) -> Any:
            data = sequences(buffer, *args, **more)
            names = [name for name in data if name.endswith("_actions")]
            dump.keep("data", {name: data[name] for name in (*names, "valid_mask")})
            return data

        def clip_grad_norm_(parameters: Any, max_norm: float, *args: Any, **more: Any) -> Any:
            given = list(parameters)
            if dump.current is not None:
                by = {id(p): name for name, p in network(dump.current["agent"]).named_parameters()}
                dump.keep("grads", {by[id(p)]: p.grad for p in given if p.grad is not None})
                dump.keep("limit", float(max_norm))
            return clip(given, max_norm, *args, **more)

        def measured_update(agent: Any, *args: Any, **more: Any) -> Any:
            dump.current = {"agent": agent}
            dump.keep("before", dict(network(agent).named_parameters()))
            try:
                return update(agent, *args, **more)
            finally:
                dump.keep("after", dict(network(agent).named_parameters()))
                found, dump.current = dump.current, None
                del found["agent"]
                dump.updates.append(found)

        ppo_agent.compute_ratio_metrics = compute_ratio_metrics
        ppo_agent.compute_losses = compute_losses
        ppo_agent.PPOAgent.update = measured_update
        Buffer.normalize_advantages = normalize_advantages
        Buffer.get_batched_sequences = get_batched_sequences
        torch.nn.utils.clip_grad_norm_ = clip_grad_norm_


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def network(agent: Any) -> Any:
    return getattr(agent.policy.network, "_orig_mod", agent.policy.network)


def inject(fault: str) -> None:
    """Break one thing in the second update: inside everything that watches."""
    from esper.simic.agent import ppo_agent

    where, head, kind = fault.split(":")
    number, count = float(kind), 0
    update, losses = ppo_agent.PPOAgent.update, ppo_agent.compute_losses
    breaking: list[bool] = []

    def compute_losses(**given: Any) -> Any:
        found = losses(**given)
        if any(breaking):
            object.__setattr__(found, "value_loss", found.value_loss * number)
            object.__setattr__(found, "total_loss", found.total_loss + found.value_loss)
        return found

    ppo_agent.compute_losses = compute_losses

    def faulty(agent: Any, *args: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count != 2:
            return update(agent, *args, **more)
        module = getattr(network(agent), f"{head}_head", None)
        handles = []
        if where == "logits":
            # First of all hooks: whoever listens to the head sees what the head gives.
            broken_head = module.register_forward_hook(
                lambda _m, _i, out: out * number, prepend=True
            )
            handles.append(broken_head)
        elif where == "grad":
            weight = next(iter(module.parameters()))
            # One entry: 0 times infinity would be NaN.
            where_it_breaks = torch.zeros(weight.numel(), dtype=torch.bool)
            where_it_breaks[0] = True
            mask = where_it_breaks.view_as(weight)
            handles.append(
                weight.register_hook(lambda gradient: gradient.masked_fill(mask, number))
            )
        elif where == "weights":
            step = agent.optimizer.step

            def stepped(*a: Any, **k: Any) -> Any:
                result = step(*a, **k)
                with torch.no_grad():
                    next(iter(module.parameters())).view(-1)[0] = number
                return result

            agent.optimizer.step = stepped
        breaking.append(where == "loss")
        try:
            return update(agent, *args, **more)
        finally:
            breaking.clear()
            for handle in handles:
                handle.remove()

    ppo_agent.PPOAgent.update = faulty


class Pages:
    """A backend after the exporter's: the page as it is when an event has come."""

    def __init__(self, exporter: Any) -> None:
        self.exporter = exporter
        self.found: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        self.inner_epochs: list[int] = []
        """What the trainer's own events of updates call the inner epoch."""

    def start(self) -> None: ...

    def emit(self, event: Any) -> None:
        name, data = event.event_type.name, event.data
        if name == "ANALYTICS_SNAPSHOT" and data.kind == "last_action":
            self.decisions.append(chosen(data))
        if name not in ("PPO_UPDATE_COMPLETED", "EPOCH_COMPLETED"):
            return
        if name == "PPO_UPDATE_COMPLETED":
            self.inner_epochs.append(data.inner_epoch)
        if name == "EPOCH_COMPLETED" and data.inner_epoch not in (3, EPOCHS):
            return
        about = {"name": name, "batch": getattr(data, "batch", None)}
        about |= {"env": getattr(data, "env_id", None)}
        self.found.append({**about, "page": self.exporter.render().decode()})

    def close(self) -> None: ...


def chosen(data: Any) -> dict[str, str | None]:
    """A decision's choice of each head, spelled as the trainer's own enumerations spell it."""
    from esper.leyline.factored_actions import AlphaTargetAction, TempoAction

    target = next(
        (each.name for each in AlphaTargetAction if each.to_target() == data.alpha_target), None
    )
    return {
        "op": data.action_name,
        "slot": data.slot_id,
        "blueprint": data.blueprint_id,
        "style": data.style,
        "tempo": None if data.tempo_idx is None else TempoAction(data.tempo_idx).name,
        "alpha_target": target,
        "alpha_speed": data.alpha_speed,
        "alpha_curve": data.alpha_curve,
    }


class Chained:
    """One worker for the exporter and then the pages, in this order."""

    def __init__(self, first: Any, then: Any) -> None:
        self.first, self.then = first, then

    def start(self) -> None:
        self.first.start()

    def emit(self, event: Any) -> None:
        self.first.emit(event)
        self.then.emit(event)

    def close(self) -> None:
        self.first.close()


class ChainingHub:
    """Takes the backend that attach adds and puts the pages behind it."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.pages: Pages | None = None

    def add_backend(self, backend: Any) -> None:
        self.pages = Pages(backend._exporter)
        self.hub.add_backend(Chained(backend, self.pages))


def main() -> int:
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(Path(os.environ["ESPER_LITE_SRC"]) / "src"))
    without_torchvision()
    torch.set_num_threads(1)  # two that wait for each other crawl on a busy machine
    random.seed(options.seed)
    np.random.seed(options.seed)
    torch.manual_seed(options.seed)
    import esper.runtime.tasks as tasks

    tasks.get_cifar10_datasets = synthetic
    from esper.nissa import get_hub
    from esper.simic.agent.ppo_agent import PPOAgent
    from esper.simic.telemetry import TelemetryConfig, TelemetryLevel
    from esper.simic.training import TrainingConfig
    from esper.simic.training.vectorized import train_ppo_vectorized

    agents: list[Any] = []
    made = PPOAgent.__init__

    def init(agent: Any, *args: Any, **more: Any) -> None:
        made(agent, *args, **more)
        agents.append(agent)

    PPOAgent.__init__ = init
    hub, exporter, chain, dump = get_hub(), None, None, Dump()
    if options.dump:
        dump.install()
    if options.fault:
        inject(options.fault)
    if options.attach:
        from esper_exporter import attach

        chain = ChainingHub(hub)
        exporter = attach(
            "live",
            hub=hub if options.bare else chain,
            after_update_every=10 if options.bare else 1,
            port=0,
            linger=0,
            state_dir="off",
            watch_process=False,
        )
    config = TrainingConfig.for_cifar_impaired()
    config.task, config.n_envs, config.n_episodes = "cifar_impaired", ENVS, options.rounds
    config.max_epochs = config.chunk_length = EPOCHS
    config.slots, config.seed, config.batch_size_per_env = ["r0c0", "r0c1"], options.seed, 64
    config.compile_mode, config.lstm_hidden_dim = "off", 128
    config.recurrent_n_epochs = options.k
    begun, cpu, error = time.perf_counter(), time.thread_time(), None
    try:
        train_ppo_vectorized(
            device="cpu",
            devices=["cpu"],
            num_workers=0,
            telemetry_config=TelemetryConfig(level=TelemetryLevel.NORMAL),
            quiet_analytics=True,
            group_id="default",
            **config.to_train_kwargs(),
        )
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    took, cpu = time.perf_counter() - begun, time.thread_time() - cpu
    generator = torch.get_rng_state()
    hub.flush(timeout=60)
    found = hashlib.sha256(generator.numpy().tobytes())
    for agent in agents:
        for _, parameter in sorted(network(agent).named_parameters()):
            found.update(parameter.detach().numpy().tobytes())
        for state in agent.optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    found.update(value.numpy().tobytes())
    before_close = exporter.render().decode() if exporter is not None else ""
    hub.close(timeout=60)
    result = {"hash": found.hexdigest(), "error": error, "seconds": took, "cpu_seconds": cpu}
    if chain is not None and chain.pages is not None:
        result |= {"decisions": chain.pages.decisions, "inner_epochs": chain.pages.inner_epochs}
    result |= {"page": before_close, "end": exporter.render().decode() if exporter else ""}
    (options.out / "result.json").write_text(json.dumps(result))
    if chain is not None and chain.pages is not None:
        (options.out / "pages.json").write_text(json.dumps(chain.pages.found))
    for number, each in enumerate(dump.updates):
        torch.save(each, options.out / f"update{number}.pt")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # torch takes many seconds to unload, and there is nothing left to do
