"""The run's verdict: one word, and the reasons with their numbers and bounds.

``broken`` is for what pages the on-call engineer: a latch, a failure, or a head that was out of
range in `esper_exporter.health.HEAD_OUT_OF_RANGE_SHARE` of the last updates. A shorter excursion,
and all other warnings, give ``look``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from esper_exporter import health
from esper_exporter.contract.tamiyo import HeadUpdatePayload, TamiyoPolicyUpdatePayload
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.health import HeadState, Level
from esper_exporter.serve.page.head_grid import LABELS, head_state, panel_heads, read_head
from esper_exporter.serve.page.numbers import Json
from esper_exporter.state.history import RunHistory
from esper_exporter.state.run import RunState

RUNBOOKS = "alerts/runbooks/"
_NOT_REPORTED = HeadUpdatePayload()


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding: ``subject`` is what it concerns, ``text`` the finding with number and bound,
    ``part`` the part of the page that shows it, ``rule`` the corresponding alerting rule."""

    level: str
    symbol: str
    subject: str
    text: str
    part: str
    rule: str = ""

    def json(self) -> Json:
        return {
            "level": self.level,
            "symbol": self.symbol,
            "subject": self.subject,
            "text": self.text,
            "part": self.part,
            "rule": self.rule,
            "runbook": f"{RUNBOOKS}{self.rule}.md" if self.rule else None,
        }


def reasons(
    run: RunState, history: RunHistory, state: str, failure: str | None, gave_up: bool
) -> list[Reason]:
    """All findings, worst first."""
    found = [
        *_end(state, failure, gave_up),
        *_latches(run, history),
        *_heads(run, history),
        *_policy(run),
        *_environments(run),
        *_memory(run),
    ]
    return sorted(found, key=lambda reason: reason.level != "crit")


def verdict_json(
    run: RunState, history: RunHistory, state: str, failure: str | None, gave_up: bool
) -> Json:
    """The word, the number of reasons by level, and the reasons; for a healthy run the checks
    that passed.

    ``failure`` is how the process ended, ``gave_up`` whether the trainer reported that it stopped
    after non-finite updates.
    """
    found = reasons(run, history, state, failure, gave_up)
    critical = sum(reason.level == "crit" for reason in found)
    return {
        "word": word(state, found),
        "critical": critical,
        "warnings": len(found) - critical,
        "reasons": [reason.json() for reason in found],
        "checked": _checked(run) if not found else [],
    }


def word(state: str, found: list[Reason]) -> str:
    """``waiting``, ``failed``, ``broken``, ``stalled``, ``look``, ``finished`` or ``healthy``."""
    if state in ("waiting", "failed"):
        return state
    if any(reason.level == "crit" for reason in found):
        return "broken"
    if state == "stalled":
        return "stalled"
    if found:
        return "look"
    return "finished" if state in ("finished", "ended", "superseded") else "healthy"


def with_reasons(verdict: Json, added: Sequence[Reason]) -> Json:
    """A live run's verdict with further reasons, such as the machine's; each is listed once."""
    before = cast(list[Json], verdict["reasons"])
    known = {(reason["subject"], reason["rule"]) for reason in before}
    added = [reason for reason in added if (reason.subject, reason.rule) not in known]
    if not added:
        return verdict
    critical = sum(reason.level == "crit" for reason in added)
    listed = before + [reason.json() for reason in added]
    found = str(verdict["word"])
    if critical and found in ("healthy", "look", "stalled"):
        found = "broken"
    elif found == "healthy":
        found = "look"
    return {
        "word": found,
        "critical": cast(int, verdict["critical"]) + critical,
        "warnings": cast(int, verdict["warnings"]) + len(added) - critical,
        "reasons": sorted(listed, key=lambda reason: reason["level"] != "crit"),
        "checked": [],
    }


def _checked(run: RunState) -> list[str]:
    """What was measured and is well; nothing is claimed of what was not measured."""
    latches = len(run.latches.heads) + len(run.latches.sources)
    checked = [f"no latch set, {latches} watched"]
    tamiyo = run.snapshot.tamiyo
    if tamiyo.ppo_data_received:
        heads = panel_heads(run)
        states = [head_state(run, head, read_head(run, head)) for head in heads]
        known = sum(state is not HeadState.UNKNOWN for state in states)
        of = f" of {len(heads)}" if known < len(heads) else ""
        if known:
            checked.append(f"{known}{of} heads, none dead, exploding or collapsed")
        values = {
            "KL": tamiyo.kl_divergence,
            "clip fraction": tamiyo.clip_fraction,
            "gradient norm": tamiyo.grad_norm,
        }
        names = [name for name, value in values.items() if value is not None]
        if names:
            listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
            checked.append(f"{listed} within bounds")
    envs = [env for env in run.snapshot.envs.values() if env.accuracy_history]
    if envs:
        stalled = sum(env.status == "stalled" for env in envs)
        found = f"{len(envs)} environments, none degraded" if len(envs) > 1 else "1 environment"
        checked.append(f"{found}, {stalled} stalled" if stalled else found)
    return checked


def _end(state: str, failure: str | None, gave_up: bool) -> list[Reason]:
    if gave_up:
        text = "gave up: non-finite updates"
        if failure not in (None, "nonfinite"):
            text += f"; process: {failure}"
        return [Reason("crit", "cross", "trainer", text, "events", "EsperRunFailed")]
    if failure is not None:
        return [Reason("crit", "cross", "run", f"failed: {failure}", "events", "EsperRunFailed")]
    if state == "stalled":
        return [
            Reason("warn", "bars", "run", "no event of any kind", "events", "EsperTelemetryStale")
        ]
    return []


def _updates(first: int | None, last: int | None, count: int) -> str:
    if first is None:
        return ""
    if count < 2 or last == first:
        return f" at update {first}"
    return f" at updates {first} … {last} (×{count})"


def _latches(run: RunState, history: RunHistory) -> list[Reason]:
    found = []
    named = False
    for (head, kind), latch in run.latches.heads.items():
        if latch.lit:
            named = True
            seen = history.latches.get(f"{head}/{kind}")
            where = _updates(
                seen.first if seen else latch.first_update,
                seen.last if seen else latch.first_update,
                latch.updates,
            )
            text = f"made {'NaN' if kind == 'nan' else 'Inf'}{where}: latched"
            found.append(
                Reason("crit", "dot", _label(head), text, "latches", "EsperHeadNonFiniteLatched")
            )
    for source, latch in run.latches.sources.items():
        # A head's latch sets log_probs as well, which would list the same fault twice.
        if latch.lit and not (named and source == "log_probs"):
            seen = history.latches.get(source)
            where = _updates(seen.first, seen.last, latch.updates) if seen else ""
            found.append(
                Reason(
                    "crit",
                    "dot",
                    source,
                    f"not finite{where}: latched",
                    "latches",
                    "EsperNonFiniteLatched",
                )
            )
    return found


def _label(head: str) -> str:
    return LABELS.get(head, head)


def _lasting(run: RunState, history: RunHistory, head: str, state: HeadState) -> bool:
    """Whether a head was in this state in most of the last updates."""
    window = history.heads
    if len(window) < health.ALERT_UPDATES or head not in HEADS:
        return False
    slots = len(run.snapshot.slot_ids)
    hits = sum(_state_in(update, head, slots) is state for update in window)
    return hits / len(window) >= health.HEAD_OUT_OF_RANGE_SHARE


def _state_in(update: TamiyoPolicyUpdatePayload, head: str, slots: int) -> HeadState:
    found = update.heads.get(head, _NOT_REPORTED)
    share = found.entropy
    choice = health.normalized_entropy_where_choice(share, found.learnable_fraction)
    return health.classify_head(head, found.grad_norm, share if choice is None else choice, slots)


def _heads(run: RunState, history: RunHistory) -> list[Reason]:
    if not run.snapshot.tamiyo.ppo_data_received:
        return []
    found = []
    for head in panel_heads(run):
        reading = read_head(run, head)
        state = head_state(run, head, reading)
        norm, share = reading.grad_norm, reading.entropy
        if state is HeadState.EXPLODING:
            text = f"gradient {norm:.2f}, above {health.HEAD_GRAD_NORM_EXPLODING:g}"
            symbol, rule = "tri", "EsperHeadGradientOutOfRange"
        elif state is HeadState.DEAD:
            text = f"is dead: gradient {norm:.3f}, entropy {share:.0%}"
            symbol, rule = "ring", "EsperHeadGradientOutOfRange"
        elif state is HeadState.COLLAPSED:
            text = f"collapsed to {share:.0%} entropy, below {health.STATE_ENTROPY_COLLAPSED:.0%}"
            symbol, rule = "dia", "EsperHeadEntropyCollapse"
        else:
            continue
        severe = state is not HeadState.COLLAPSED and _lasting(run, history, head, state)
        found.append(
            Reason("crit" if severe else "warn", symbol, _label(head), text, "heads", rule)
        )
    return found


def _policy(run: RunState) -> list[Reason]:
    tamiyo = run.snapshot.tamiyo
    if not tamiyo.ppo_data_received:
        return []
    update = run.update
    norm = getattr(update, "pre_clip_grad_norm", None)
    if norm is None:
        norm = tamiyo.grad_norm
    checks = (
        (
            "gradient norm",
            norm,
            health.grad_norm_level,
            (health.GRAD_NORM_WARNING, health.GRAD_NORM_CRITICAL),
            "{:.3g}",
            "EsperGradientExplosion",
        ),
        (
            "KL",
            tamiyo.kl_divergence,
            health.kl_level,
            (health.KL_WARNING, health.KL_CRITICAL),
            "{:.4f}",
            "EsperKlDivergenceHigh",
        ),
        (
            "clip fraction",
            tamiyo.clip_fraction,
            health.clip_fraction_level,
            (health.CLIP_FRACTION_WARNING, health.CLIP_FRACTION_CRITICAL),
            "{:.1%}",
            "EsperClipFractionHigh",
        ),
    )
    found = []
    for subject, value, judge, bounds, form, rule in checks:
        if value is None or not math.isfinite(value):
            continue
        level = judge(value)
        if level in (Level.WARNING, Level.CRITICAL):
            bound = bounds[level is Level.CRITICAL]
            text = f"{form.format(value)}, above {bound:g}"
            found.append(Reason("warn", "up", subject, text, "policy", rule))
    for subject, count, rule in (
        ("dead layers", tamiyo.dead_layers, "EsperLayersDied"),
        ("exploding layers", tamiyo.exploding_layers, "EsperLayersExploding"),
        ("NaN gradients", tamiyo.nan_grad_count, "EsperNonFiniteGradient"),
        ("Inf gradients", tamiyo.inf_grad_count, "EsperNonFiniteGradient"),
    ):
        if count:
            found.append(
                Reason("warn", "tri", subject, f"{count} in the last update", "heads", rule)
            )
    return found


def _environments(run: RunState) -> list[Reason]:
    envs = run.snapshot.envs
    degraded = [env for env in envs.values() if env.status == "degraded"]
    rolled = [env for env in envs.values() if env.rolled_back]
    found = []
    if len(degraded) == 1:
        env = degraded[0]
        drop = env.best_accuracy - (env.host_accuracy or 0.0)
        text = f"fell {drop:.1f} points below its best"
        found.append(
            Reason("warn", "down", f"env {env.env_id}", text, "envs", "EsperPerformanceDegraded")
        )
    elif degraded:
        text = f"degraded of {len(envs)}"
        found.append(
            Reason(
                "warn", "down", f"{len(degraded)} environments", text, "envs", "EsperEnvsDegraded"
            )
        )
    if rolled:
        names = ", ".join(str(env.env_id) for env in rolled[:3])
        text = f"rolled back: {rolled[0].rollback_reason or 'governor'}"
        found.append(Reason("warn", "undo", f"env {names}", text, "envs", "EsperRollbackStorm"))
    return found


def _memory(run: RunState) -> list[Reason]:
    return [
        Reason(
            "warn",
            "up",
            device,
            f"memory above {health.MEMORY_CRITICAL:.0%}",
            "system",
            "EsperHostMemoryHigh" if device == "RAM" else "EsperGpuMemoryHigh",
        )
        for device in run.snapshot.vitals.memory_alarm_devices
    ]
