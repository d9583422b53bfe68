"""Brings one run's state into the value table.

Rows are written at a scrape, not per event: events outnumber scrapes by hundreds to one,
and what an event touched is remembered until then. The caller of `refresh` holds the exporter's
lock, so a page never shows half an update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from esper_exporter.contract.event_table import TYPES
from esper_exporter.contract.vocabulary import AUX_HEADS, OPS
from esper_exporter.metrics.families.head_metrics import SOURCE_LATCH_ROWS
from esper_exporter.metrics.families.run_metrics import RUN_INFO_LABELS
from esper_exporter.metrics.row_types import Blocks
from esper_exporter.metrics.rows import Drop, RowSet, TallyRows
from esper_exporter.metrics.table import ABSENT, ValueTable
from esper_exporter.state import counted
from esper_exporter.state.aggregator import Aggregator
from esper_exporter.state.latches import Latch

MAX_LAYERS = 512
LATEST: dict[str, object] = {row.latest: None for row in TYPES.values() if row.latest is not None}


class RunPublisher:
    """Owns one run's rows in the table. ``job`` holds the values of `JOB_LABELS`."""

    def __init__(
        self,
        table: ValueTable,
        blocks: Blocks,
        aggregator: Aggregator,
        drop: Drop,
        on_error: Callable[[str], None],
        job: Mapping[str, str | None],
    ) -> None:
        self._job = job
        self._table = table
        self._blocks = blocks
        self._aggregator = aggregator
        self._on_error = on_error
        self._state = aggregator.state
        base = self._base = self._state.identity.labels()

        def rows(block: str, *names: str) -> RowSet:
            return RowSet(table, block, base, names)

        def capped(block: str, *names: str) -> RowSet:
            return RowSet(table, block, base, names, drop)

        self._run = rows("run")
        self._info = rows("esper_run_info", *RUN_INFO_LABELS)
        self._policy = rows("policy")
        self._observations = rows("observations")
        self._heads = rows("head", "head")
        self._ops = rows("op", "op")
        self._stages = rows("stage", "stage")
        self._layers = capped("layer", "layer")
        self._layer_norms = capped("layer_norm", "layer")
        self._layer_faults = capped("layer_fault", "layer", "source", "kind")
        self._head_latches = rows("head_latch", "head", "kind")
        self._source_latches = rows("source_latch", "source")
        self._envs = capped("env", "env_id")
        self._slots = capped("slot", "env_id", "slot_id")
        self._seed_info = capped(
            "esper_kasmina_seed_info", "env_id", "slot_id", "blueprint", "alpha_curve"
        )
        self._blueprints = capped("env_blueprint", "env_id", "blueprint")
        self._shapley = capped("shapley", "env_id", "slot_id")
        self._best_runs = rows("best_run", "place")
        self._devices = capped("device", "device")
        self._tallies = TallyRows(table, counted.OF_RUN, base, lambda: on_error("publish"))
        self._latch_columns = {
            block.name: [metric.name for metric in block.metrics]
            for block in blocks.blocks
            if block.name in ("head_latch", "source_latch", "layer_fault")
        }
        self._info_labels: tuple[str, ...] | None = None
        self._seed_labels: dict[tuple[str, str], tuple[str, str]] = {}

    def _roots(self, **more: Any) -> dict[str, Any]:
        state = self._state
        return {"run": state, "snapshot": state.snapshot, "update": state.update, **more}

    def refresh(self) -> None:
        """Write what changed since the last time, faults first.

        A part that fails costs only itself and is reported to ``on_error``.
        """
        for step in (
            self._state.settle,
            self._write_latches,
            self._write_layer_faults,
            self._write_tallies,
            self._aggregator.refresh,
            self._write_run,
            self._write_ops,
            self._write_policy,
            self._write_layers,
            self._write_observations,
            self._write_envs,
            self._write_slots,
            self._write_attributions,
            self._write_best_runs,
            self._write_devices,
        ):
            try:
                step()
            except Exception:
                self._on_error("publish")
        self._state.touched.clear()

    def _write_run(self) -> None:
        state = self._state
        of_run = self._roots(started=state.started, batch_stats=state.batch_stats)
        roots = LATEST | state.latest | of_run
        self._run.write(self._blocks.fillers["run"].values(roots))
        snapshot = state.snapshot
        if state.began and state.has_seeds():
            for stage, count in snapshot.slot_stage_counts.items():
                self._stages.write([float(count)], stage)
        self._write_info()

    def _write_info(self) -> None:
        started = self._state.started
        if started is None:
            return
        scale = {None: "", True: "nats", False: "ratio"}[self._state.entropy_in_nats]
        known: dict[str, object] = {
            **msgspec.structs.asdict(started),
            "env_devices": ",".join(dict.fromkeys(started.env_devices)),
            "entropy_scale": scale,
            **self._job,
        }
        labels = tuple(
            "" if known.get(name) is None else str(known[name]) for name in RUN_INFO_LABELS
        )
        if labels != self._info_labels:
            self._info_labels = labels
            self._info.remove()
            self._info.write([1.0], *labels)

    def _write_ops(self) -> None:
        tamiyo, update = self._state.snapshot.tamiyo, self._state.update
        columns = [metric.name for metric in self._blocks.catalogue.block("op")]
        running = self._running_actions()
        shares = (update.op_distribution if update is not None else None) or {}
        for place, op in enumerate(OPS):
            valid = tamiyo.op_valid_mask[place]
            known = update is not None and update.op_q_values is not None
            reported = update is not None and update.op_valid_mask is not None
            values: dict[str, Any] = {
                "esper_tamiyo_q_value": tamiyo.op_q_values[place]
                if known and (valid or not reported)
                else None,
                "esper_tamiyo_op_valid": valid if reported else None,
                "esper_tamiyo_op_probability_ratio": shares.get(op),
                "esper_tamiyo_episode_actions": running.get(op, 0) if running else None,
            }
            self._ops.write([_cell(values[name]) for name in columns], op)

    def _running_actions(self) -> dict[str, int]:
        """Actions of the running episode by operation; empty before the first."""
        counts: dict[str, int] = {}
        for env in self._state.snapshot.envs.values():
            if env.total_actions:
                for op, count in env.action_counts.items():
                    counts[op] = counts.get(op, 0) + count
        return counts

    def _write_policy(self) -> None:
        if not self._state.touched.policy:
            return
        roots = self._roots()
        self._policy.write(self._blocks.fillers["policy"].values(roots))
        filler, states = self._blocks.fillers["head"], self._state.snapshot.tamiyo.heads
        shown = [head for head in (*self._state.heads, *AUX_HEADS) if head in states]
        self._heads.keep((head,) for head in shown)
        for head in shown:
            self._heads.write(filler.values({**roots, "head": states[head], "name": head}), head)

    def _write_layers(self) -> None:
        if not self._state.touched.layers:
            return
        update = self._state.update
        health = (update or self._state.snapshot.tamiyo).layer_gradient_health
        for rows, reported in (
            (self._layers, health),
            (self._layer_norms, update.grad_norm_per_layer if update else None),
        ):
            shown = list((reported or {}).items())[:MAX_LAYERS]
            rows.keep((layer,) for layer, _ in shown)
            for layer, value in shown:
                rows.write([_cell(value)], layer)

    def _write_observations(self) -> None:
        if self._state.touched.observations and self._state.observed:
            roots = {"observations": self._state.snapshot.observation_stats}
            self._observations.write(self._blocks.fillers["observations"].values(roots))

    def _write_layer_faults(self) -> None:
        faults = self._state.layer_faults
        if faults.changed:
            faults.changed = False
            columns = self._latch_columns["layer_fault"]
            for key, latch in faults.latches.items():
                self._layer_faults.write(_latch(latch, columns), *key)

    def _write_latches(self) -> None:
        latches = self._state.latches
        if not latches.changed:
            return
        latches.changed = False
        columns = self._latch_columns["head_latch"]
        self._head_latches.keep(latches.heads)
        for (head, kind), latch in latches.heads.items():
            self._head_latches.write(_latch(latch, columns), head, kind)
        columns = self._latch_columns["source_latch"]
        for source in SOURCE_LATCH_ROWS:
            self._source_latches.write(_latch(latches.sources[source], columns), source)

    def _write_envs(self) -> None:
        touched = self._state.touched
        for env_id in set(self._state.snapshot.envs) if touched.all_envs else touched.envs:
            self._write_env(env_id)

    def _write_slots(self) -> None:
        touched = self._state.touched
        if touched.all_envs:
            self._write_all_slots()
        for env_id, slot_id in touched.seeds:
            self._write_slot(env_id, slot_id)

    def _write_attributions(self) -> None:
        touched = self._state.touched
        for env_id in set(self._state.snapshot.envs) if touched.all_envs else touched.attribution:
            self._write_attribution(env_id)

    def _write_devices(self) -> None:
        filler = self._blocks.fillers["device"]
        for device in self._state.touched.devices:
            values = filler.values({"memory": self._state.torch_memory[device]})
            self._devices.write(values, device)

    def _write_env(self, env_id: int) -> None:
        state = self._state
        env = state.snapshot.envs[env_id]
        outcome, decision = state.last_outcome.get(env_id), state.last_decision.get(env_id)
        if not (
            env.last_update
            or env.total_reward_steps
            or outcome
            or env.seeds
            or env.rollback_timestamp
            or env.counterfactual_matrix.configs
        ):
            self._envs.clear(str(env_id))
            return
        roots = {
            "env": env,
            "run": state,
            "epoch": state.host_epochs.get(env_id),
            "outcome": outcome,
            "decision": None if decision is None else decision.snapshot(),
        }
        key = str(env_id)
        self._envs.write(self._blocks.fillers["env"].values(roots), key)
        counts = (env.blueprint_spawns, env.blueprint_prunes, env.blueprint_fossilized)
        for blueprint in dict.fromkeys(name for count in counts for name in count):
            self._blueprints.write(
                [_cell(count.get(blueprint)) for count in counts], key, blueprint
            )

    def _write_slot(self, env_id: int, slot_id: str) -> None:
        env = self._state.snapshot.envs.get(env_id)
        seed = env.seeds.get(slot_id) if env is not None else None
        key = (str(env_id), slot_id)
        if seed is None:
            self._slots.clear(*key)
        else:
            filler, roots = self._blocks.fillers["slot"], {"seed": seed}
            if seed.stage == "DORMANT":
                values = filler.only("esper_kasmina_slot_stage", roots)
            else:
                values = filler.values(roots)
            self._slots.write(values, *key)
        reported = (seed.blueprint_id, seed.alpha_curve) if seed and seed.blueprint_id else None
        before = self._seed_labels.get(key)
        if before is not None and before != reported:
            self._seed_info.clear(*key, *before)
            del self._seed_labels[key]
        if reported is not None and before != reported:
            self._seed_labels[key] = reported
            self._seed_info.write([1.0], *key, *reported)

    def _write_all_slots(self) -> None:
        """After a batch every slot is empty: what is not in the state any more goes."""
        envs = self._state.snapshot.envs
        for key, slot_id in list(self._slots.rows):
            self._write_slot(int(key), slot_id)
        for env_id, env in envs.items():
            for slot_id in env.seeds:
                self._write_slot(env_id, slot_id)
        self._blueprints.keep(
            (str(env_id), blueprint)
            for env_id, env in envs.items()
            for blueprint in (*env.blueprint_spawns, *env.blueprint_prunes)
        )

    def _write_attribution(self, env_id: int) -> None:
        env = self._state.snapshot.envs[env_id]
        key = str(env_id)
        estimates = env.shapley_snapshot.values
        for of_env, slot_id in self._shapley.rows:
            if of_env == key and slot_id not in estimates:
                self._shapley.clear(key, slot_id)
        filler = self._blocks.fillers["shapley"]
        for slot_id, estimate in estimates.items():
            self._shapley.write(filler.values({"estimate": estimate}), key, slot_id)
        self._write_env(env_id)

    def _write_best_runs(self) -> None:
        if not self._state.touched.best_runs:
            return
        filler = self._blocks.fillers["best_run"]
        records = self._state.snapshot.best_runs
        self._best_runs.keep((str(place),) for place in range(len(records)))
        for place, record in enumerate(records):
            self._best_runs.write(filler.values({"record": record}), str(place))

    def _write_tallies(self) -> None:
        state = self._state
        state.decisions.settle(state.tallies)
        self._tallies.write(state.tallies, state.distributions)

    def remove(self) -> None:
        """Take the run off the page."""
        for value in self.__dict__.values():
            if isinstance(value, RowSet | TallyRows):
                value.remove()


def _cell(value: Any) -> float:
    return ABSENT if value is None else float(value)


def _latch(latch: Latch, columns: list[str]) -> list[float]:
    """A latch's row: the columns' names end in what they hold."""
    cells = {
        "latched": 1.0 if latch.lit else 0.0,
        "updates_total": float(latch.updates),
        "first_timestamp_seconds": latch.first.timestamp() if latch.first else ABSENT,
        "last_timestamp_seconds": latch.last.timestamp() if latch.last else ABSENT,
        "first_update": _cell(latch.first_update),
        "first_batch": _cell(latch.first_batch),
    }
    return [next(v for suffix, v in cells.items() if name.endswith(suffix)) for name in columns]
