"""A run's environments as JSON: one row each for the wall, all details of the opened one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from esper_exporter.serve.page.numbers import Json, number
from esper_exporter.state.attribution import CounterfactualSnapshot, ShapleySnapshot
from esper_exporter.state.environment import EnvState
from esper_exporter.state.lifecycle import SeedState
from esper_exporter.state.rewards import RewardComponents
from esper_exporter.state.run import RunState
from esper_exporter.state.snapshot import BestRunRecord

Curve = NDArray[np.float64]
"""The JSON writer takes arrays as they are."""

COLUMNS = (
    "id",
    "status",
    "epoch",
    "accuracy",
    "best",
    "reward",
    "growth",
    "action",
    "accuracies",
    "slots",
)
SLOT_COLUMNS = (
    "stage",
    "blueprint_id",
    "alpha",
    "epochs_in_stage",
    "has_vanishing",
    "has_exploding",
    "accuracy_delta",
)
"""What the wall shows about a slot; a slot without a seed is null. At 64 × 9 this is the largest
part of an answer, so rows are arrays, and one call reads a slot."""

CONTEXT = frozenset(
    {"total", "env_id", "val_acc", "stable_val_acc", "last_action", "scaffold_count"}
    | {"avg_scaffold_delay", "escrow_credit_prev", "escrow_credit_target", "escrow_credit_next"}
)
"""Fields of the reward that are not part of its sum."""

EXTRA_PARTS = (
    "pbrs_bonus",
    "synergy_bonus",
    "action_shaping",
    "terminal_bonus",
    "occupancy_rent",
    "fossilized_rent",
    "drip_this_epoch",
)
"""Parts that the event carries but the schema's breakdown does not."""

DECIMALS = 2
"""Of the percent points on the wall: more is not seen, and would double the answer. The details of
an environment have all digits."""
WALL_DECIMALS = 1
"""Of the curves where there are too many environments for a row each."""
ROWS_AT_MOST = 8

_slot = attrgetter(*SLOT_COLUMNS[:-1])


def shown(run: RunState, env: EnvState, over: bool) -> EnvState:
    """An environment to look at. Of a run that is over, and whose last batch began an episode that
    reported nothing, that is the environment as the episode before ended."""
    begun = env.accuracy_history or env.reward_history or env.action_history or env.seeds
    return env if begun or not over else run.last_episode.get(env.env_id, env)


def environments_json(run: RunState, over: bool = False) -> Json:
    """All environments, by number."""
    snapshot = run.snapshot
    slot_ids = snapshot.slot_ids
    envs = [shown(run, env, over) for _, env in sorted(snapshot.envs.items())]
    curves = _curves([env.accuracy_history for env in envs])
    accuracies = _rounded([env.host_accuracy for env in envs])
    bests = _rounded([env.best_accuracy for env in envs])
    slots = _slots([[env.seeds.get(name) for name in slot_ids] for env in envs])
    return {
        "slot_ids": slot_ids,
        "columns": COLUMNS,
        "slot_columns": SLOT_COLUMNS,
        "rows": list(map(_row, envs, accuracies, bests, curves, slots)),
    }


def _curves(histories: Sequence[Collection[float]]) -> Iterator[Curve]:
    """Accuracies as they are drawn, rounded all at once."""
    decimals = DECIMALS if len(histories) <= ROWS_AT_MOST else WALL_DECIMALS
    values = np.fromiter(chain.from_iterable(histories), np.float64)
    rounded = np.round(values, decimals)
    start = 0
    for history in histories:
        yield rounded[start : start + len(history)]
        start += len(history)


def _rounded(values: list[float] | list[float | None]) -> list[float]:
    """Values as the wall shows them, rounded all at once; None becomes NaN."""
    found: list[float] = np.round(np.array(values, np.float64), DECIMALS).tolist()
    return found


def _slots(seeds: Sequence[Sequence[SeedState | None]]) -> Iterator[list[object]]:
    """The slots of each environment by `SLOT_COLUMNS`; the gains are rounded all at once."""
    gains = iter(
        _rounded([seed.accuracy_delta for row in seeds for seed in row if seed is not None])
    )
    for row in seeds:
        yield [None if seed is None else (*_slot(seed), next(gains)) for seed in row]


def _row(
    env: EnvState, accuracy: float, best: float, curve: Curve, slots: list[object]
) -> list[object]:
    measured = bool(env.accuracy_history)
    history = env.action_history
    return [
        env.env_id,
        "rollback" if env.rolled_back else env.status,
        env.current_epoch,
        number(accuracy) if measured else None,
        number(best) if measured else None,
        number(env.reward_history[-1]) if env.reward_history else None,
        number(env.growth_ratio),
        history[-1] if history else None,
        curve,
        slots,
    ]


def environment_json(run: RunState, env: EnvState) -> Json:
    """Everything about one environment, for the drawer."""
    snapshot = run.snapshot
    measured = bool(env.accuracy_history)
    reward = run.last_rewards.get(env.env_id)
    parts = reward_parts(env.reward_components)
    for name in EXTRA_PARTS:
        value = getattr(reward, name, None)
        if value is not None:
            parts[name] = number(value)
    rewarded = bool(env.reward_history)
    return {
        "id": env.env_id,
        "loss": number(env.host_loss) if measured else None,
        "accuracy": number(env.host_accuracy) if measured else None,
        "best": number(env.best_accuracy) if measured else None,
        "best_epoch": env.best_accuracy_epoch if measured else None,
        "epoch": env.current_epoch,
        "reward": number(env.reward_history[-1]) if rewarded else None,
        "episode_reward": number(env.cumulative_reward) if rewarded else None,
        "growth": number(env.growth_ratio),
        "host_params": env.host_params or None,
        "accuracies": [number(value) for value in env.accuracy_history],
        "rewards": [number(value) for value in env.reward_history],
        "seeds": [
            {"slot": slot, **_seed(seed)} if (seed := env.seeds.get(slot)) else {"slot": slot}
            for slot in [*snapshot.slot_ids, *(s for s in env.seeds if s not in snapshot.slot_ids)]
        ],
        "parts": parts if rewarded else {},
        "total": number(env.reward_components.total) if rewarded else None,
        "counterfactual": _counterfactual(env.counterfactual_matrix),
        "shapley": _shapley(env.shapley_snapshot),
        "actions": list(env.action_history),
        "action_counts": {op: count for op, count in env.action_counts.items() if count},
        "rollback": env.rollback_reason if env.rolled_back else None,
        "best_runs": [
            _best(record) for record in snapshot.best_runs if record.env_id == env.env_id
        ][:1],
    }


def reward_parts(parts: RewardComponents) -> dict[str, object]:
    """The summands of a reward, by name."""
    return {name: number(value) for name, value in asdict(parts).items() if name not in CONTEXT}


def _seed(seed: SeedState) -> Json:
    return {
        "stage": seed.stage,
        "blueprint": seed.blueprint_id,
        "alpha": number(seed.alpha),
        "gain": number(seed.accuracy_delta),
        "epochs": seed.epochs_in_stage,
        "params": seed.seed_params,
        "vanishing": seed.has_vanishing,
        "exploding": seed.has_exploding,
        "curve": seed.alpha_curve,
        "tempo": seed.blend_tempo_epochs,
    }


def _counterfactual(matrix: CounterfactualSnapshot | None) -> Json | None:
    if matrix is None or not matrix.slot_ids:
        return None
    # An ablation may report the same choice twice; the first report counts.
    configs: dict[tuple[bool, ...], float] = {}
    for config in matrix.configs:
        configs.setdefault(tuple(config.seed_mask), config.accuracy)
    return {
        "slots": matrix.slot_ids,
        "configs": [{"mask": mask, "accuracy": number(acc)} for mask, acc in configs.items()],
        "strategy": matrix.strategy,
        "milliseconds": number(matrix.compute_time_ms),
    }


def _shapley(values: ShapleySnapshot | None) -> Json | None:
    if values is None or not values.slot_ids:
        return None
    return {
        "batch": values.epoch,
        "slots": [
            {
                "slot": slot,
                "mean": number(value.mean),
                "std": number(value.std),
                "samples": value.n_samples,
                "significant": values.get_significance(slot),
            }
            for slot, value in values.values.items()
        ],
    }


def _best(record: BestRunRecord) -> Json:
    return {
        "episode": record.episode,
        "epoch": record.epoch,
        "peak": number(record.peak_accuracy),
        "final": number(record.final_accuracy),
        "growth": number(record.growth_ratio),
        "reward": number(record.peak_cumulative_reward),
        "seeds": [{"slot": slot, **_seed(seed)} for slot, seed in record.seeds.items()],
        "parts": reward_parts(record.reward_components) if record.reward_components else {},
        "counterfactual": _counterfactual(record.counterfactual_matrix),
        "shapley": _shapley(record.shapley_snapshot),
        "actions": record.action_history,
        "fossilized": record.fossilized_count,
        "pruned": record.pruned_count,
    }
