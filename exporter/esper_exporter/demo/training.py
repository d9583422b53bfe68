"""The demo's training: batches of episodes, an update after each, and all their events."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from esper_exporter import PolicyProbe
from esper_exporter.contract.vocabulary import OPS
from esper_exporter.demo.accuracy_trend import Trends
from esper_exporter.demo.actions import choices
from esper_exporter.demo.digits import load
from esper_exporter.demo.episode_batch import Collector
from esper_exporter.demo.faults import Faults
from esper_exporter.demo.host_network import slot_names
from esper_exporter.demo.observation import size
from esper_exporter.demo.policy_network import Policy
from esper_exporter.demo.ppo import CLIP, ENTROPY_WEIGHT, LEARNING_RATE, MAX_GRAD_NORM, Learner
from esper_exporter.demo.profile import Profile
from esper_exporter.demo.stream import Stream
from esper_exporter.demo.training_environment import REWARD_MODE, Environment

TASK = "digits"
SCALE_GROWS_AFTER = 20
"""Steps without overflow before the scale grows; torch's default of 2000 outlasts a demo."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to train. ``updates`` None trains until Ctrl-C."""

    seed: int = 1
    envs: int = 4
    slots: int = 3
    epochs: int = 24
    """Host epochs per episode, each one step of the policy."""
    updates: int | None = None
    compile: bool = False
    amp: bool = False
    dual_emit: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of episodes and its update, applied or skipped.

    Accuracy is percent; ``entropy`` is the mean of the heads' shares of the largest possible.
    """

    number: int
    mean_return: float
    accuracy: float
    entropy: float
    carried_out: bool
    seconds: float


class Training:
    """A training from its beginning; `batches` does it."""

    def __init__(self, options: Options, stream: Stream, faults: Faults) -> None:
        self._options = options
        self._stream = stream
        self._faults = faults
        torch.manual_seed(options.seed)
        slot_ids = slot_names(options.slots)
        offered = choices(slot_ids)
        policy = self._policy = Policy(
            size(options.slots), {head: len(words) for head, words in offered.items()}
        )
        optimizer = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE)
        scaler = torch.amp.GradScaler("cpu", enabled=options.amp, growth_interval=SCALE_GROWS_AFTER)
        self._probe = PolicyProbe(
            policy,
            stream,
            heads=policy.choices,
            head_modules={**dict(policy.heads), "value": policy.critic, "q": policy.q},
            optimizer=optimizer,
            scaler=scaler,
            max_grad_norm=MAX_GRAD_NORM,
            clip_ratio=CLIP,
            dual_emit=options.dual_emit,
        )
        self._profile = Profile()
        digits = load(options.seed)
        self._environments = [
            Environment(
                env_id,
                options.slots,
                options.epochs,
                digits,
                stream,
                self._probe,
                self._profile,
                seed=options.seed * 1000 + env_id,
            )
            for env_id in range(options.envs)
        ]
        generator = torch.Generator().manual_seed(options.seed)
        self._collector = Collector(
            policy,
            self._environments,
            offered,
            stream,
            self._profile,
            self._autocast,
            generator,
        )
        self._backend = compiler() if options.compile else None
        evaluate = torch.compile(policy, backend=self._backend) if self._backend else policy
        self._learner = Learner(
            policy, evaluate, self._probe, optimizer, scaler, self._autocast, faults, generator
        )
        self._trends = Trends()

    def batches(self) -> Iterator[Batch]:
        """Train, batch by batch. Raises the training's error."""
        self._emit_started()
        number = 0
        try:
            while self._options.updates is None or number < self._options.updates:
                number += 1
                yield self._batch(number)
        finally:
            self._probe.close()
            self._stream.flush()

    def _batch(self, number: int) -> Batch:
        begun = time.perf_counter()
        environments = self._environments
        for environment in environments:
            environment.begin((number - 1) * len(environments) + environment.env_id)
        self._faults.before_rollout(number, self._policy.heads)
        acting = time.perf_counter()
        rollout = self._collector.collect(self._options.epochs)
        acting = time.perf_counter() - acting
        for environment in environments:
            environment.end(number)
        with self._profile.time("ppo_update"):
            learned = self._learner.update(number, rollout)
        returns = [environment.episode_return for environment in environments]
        self._emit_batch(number, learned.carried_out, acting)
        return Batch(
            number,
            sum(returns) / len(returns),
            self._mean_accuracy(),
            learned.entropy,
            learned.carried_out,
            time.perf_counter() - begun,
        )

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._options.amp)

    def _mean_accuracy(self) -> float:
        return sum(each.accuracy for each in self._environments) / len(self._environments)

    # -- events ----------------------------------------------------------------------------------

    def _emit_started(self) -> None:
        options, updates = self._options, self._options.updates or 0
        self._probe.training_started(
            n_envs=options.envs,
            max_epochs=options.epochs,
            max_batches=updates,
            task=TASK,
            host_params=self._environments[0].trainer.params,
            slot_ids=slot_names(options.slots),
            seed=options.seed,
            n_episodes=updates * options.envs or None,
            start_episode=0,
            world_size=1,
            entropy_coef=ENTROPY_WEIGHT,
            reward_mode=REWARD_MODE,
            amp_enabled=options.amp,
            amp_dtype="bfloat16" if options.amp else None,
            compile_enabled=options.compile,
            compile_backend=self._backend,
            compile_mode="default" if options.compile else None,
        )

    def _emit_batch(self, number: int, carried_out: bool, seconds: float) -> None:
        """``seconds`` is the time of the batch's steps, host training included."""
        environments, epochs = self._environments, self._options.epochs
        progress = {"episodes_completed": number * len(environments)}
        accuracies = [each.accuracy for each in environments]
        trends = self._trends.see(accuracies)
        self._stream.record(
            "ANALYTICS_SNAPSHOT",
            {
                **progress,
                "kind": "batch_stats",
                "batch": number,
                "inner_epoch": epochs,
                "accuracy": self._mean_accuracy(),
                "host_accuracy": self._mean_accuracy(),
                "step_time_ms": 1000.0 * seconds / epochs,
                "fps": epochs * len(environments) / seconds,
                "seeds_created": sum(each.seeds.germinated for each in environments),
                "seeds_fossilized": sum(each.seeds.fossilized for each in environments),
                "skipped_update": not carried_out,
            },
        )
        self._stream.record(
            "TOLARIA_BATCH_COMPLETED",
            {
                **progress,
                "batch_idx": number,
                "avg_accuracy": self._mean_accuracy(),
                "avg_reward": sum(e.episode_return for e in environments) / len(environments),
                "total_episodes": (self._options.updates or 0) * len(environments),
                "n_envs": len(environments),
                "rolling_accuracy": self._trends.rolling,
                "env_accuracies": accuracies,
            },
        )
        phases = {"phases": self._profile.take(), "epoch": epochs, "batch_idx": number}
        self._stream.record("PHASE_PROFILE_COMPLETED", phases)
        for name, trend in trends:
            self._stream.record(name, trend)
        self._stream.record(
            "ANALYTICS_SNAPSHOT",
            {
                "kind": "action_distribution",
                "action_counts": {
                    op: sum(each.op_counts[op] for each in environments) for op in OPS
                },
            },
        )
        self._stream.flush()


def compiler() -> str:
    """The backend of torch.compile: inductor where there is a C++ compiler for it to use."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    found = any(name and shutil.which(name) for name in names)
    return "inductor" if found else "aot_eager"
