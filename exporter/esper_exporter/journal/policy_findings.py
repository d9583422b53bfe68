"""Findings: what went wrong with the policy, the critic and the environments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from esper_exporter import health
from esper_exporter.contract.vocabulary import HEADS
from esper_exporter.journal.finding import (
    HISTORY,
    KL_AT_ONCE,
    RATIO_EXPLODED,
    STREAK,
    Finding,
    real_of,
)
from esper_exporter.journal.record import RunRecord, Update


def choice_entropy(update: Update, head: str, slots: int) -> float | None:
    """A head's entropy over the steps in which it had a choice, as a share of its maximum."""
    from esper_exporter.contract.vocabulary import head_max_entropy

    entropy = real_of(update.values, f"head_{head}_entropy")
    if entropy is None:
        return None
    shares = [real_of(update.values, f"head_{each}_entropy") or 0.0 for each in HEADS]
    if max(shares) > 1.01:  # a run of the seeds' age reports nats
        most = head_max_entropy(head, slots)
        return entropy / most if most > 0 else None
    learnable = real_of(update.values, f"head_{head}_learnable_fraction")
    if learnable is None:
        return entropy
    return entropy / learnable if learnable >= 0.01 else None


def find_entropy(run: RunRecord) -> Iterator[Finding]:
    slots = len(run.config.get("slot_ids") or ()) or 3
    own = sorted({head for update in run.updates for head in _own_heads(update)})
    for head in (*HEADS, *own):
        if head == "slot" and slots == 1:
            continue
        before: list[float] = []
        low: list[Update] = []
        for update in run.updates:
            share = choice_entropy(update, head, slots)
            if head in own:
                share = _own_heads(update).get(head)
            if share is None:
                continue
            known = real_of(update.values, f"head_{head}_learnable_fraction") is not None
            usual = median(before) if len(before) >= HISTORY else None
            fell = usual is not None and share < 0.2 * usual
            if share < health.STATE_ENTROPY_COLLAPSED and (fell or known or head in own):
                low.append(update)
            else:
                low.clear()
                before.append(share)
            if len(low) >= STREAK:
                yield Finding(
                    "entropy_collapse",
                    low[0].number,
                    low[0].time,
                    low[0].seq,
                    f"entropy of head {head} at {share:.3g} of its maximum where it had a choice"
                    + (f", {usual:.2f} before" if usual else ""),
                    head,
                )
                break


def _own_heads(update: Update) -> dict[str, float]:
    incidents = update.values.get("head_updates")
    found = {}
    for name, values in incidents.items() if isinstance(incidents, dict) else ():
        entropy = values.get("entropy") if isinstance(values, dict) else None
        if isinstance(entropy, float) and name not in HEADS:
            found[name] = entropy
    return found


def _streak(run: RunRecord, name: str, limit: float) -> list[Update]:
    """The first updates in a row that exceed a limit, `STREAK` of them; empty without."""
    above: list[Update] = []
    for update in run.updates:
        value = real_of(update.values, name)
        if value is not None and value > limit:
            above.append(update)
            if len(above) == STREAK:
                return above
        elif value is not None:
            above.clear()
    return []


def find_trust_region(run: RunRecord) -> Iterator[Finding]:
    once = next(
        (u for u in run.updates if (real_of(u.values, "kl_divergence") or 0) > KL_AT_ONCE), None
    )
    long = _streak(run, "kl_divergence", health.KL_CRITICAL)
    clipped = _streak(run, "clip_fraction", health.CLIP_FRACTION_CRITICAL)
    starts = [each for each in (once, *long[:1], *clipped[:1]) if each is not None]
    if starts:
        first = min(starts, key=lambda update: update.seq)
        kl = real_of(first.values, "kl_divergence") or 0.0
        clip = real_of(first.values, "clip_fraction") or 0.0
        yield Finding(
            "trust_region",
            first.number,
            first.time,
            first.seq,
            f"KL divergence {kl:.3g} nats, {clip:.0%} of the samples clipped",
        )


def find_ratio(run: RunRecord) -> Iterator[Finding]:
    found = [u for u in run.updates if (real_of(u.values, "ratio_max") or 0) > RATIO_EXPLODED]
    incidents = [
        each for each in run.incidents if each.kind in ("ratio_explosion", "ratio_nan_inf")
    ]
    if found and (not incidents or found[0].seq <= incidents[0].seq):
        update = found[0]
        worst = max(HEADS, key=lambda head: real_of(update.values, f"head_{head}_ratio_max") or 0.0)
        largest = real_of(update.values, f"head_{worst}_ratio_max") or 0.0
        yield Finding(
            "ratio_explosion",
            update.number,
            update.time,
            update.seq,
            f"largest probability ratio {update.values['ratio_max']:.3g}",
            worst if largest > RATIO_EXPLODED else None,
        )
    elif incidents:
        first = incidents[0]
        yield Finding("ratio_explosion", first.number, first.time, first.seq, first.detail)


def find_value(run: RunRecord) -> Iterator[Finding]:
    """The value estimates lose their spread, or the trainer says so again after its first updates.

    Its warning in the first updates is normal: an untrained critic is far off.
    """
    spreads: list[float] = []
    low: list[Update] = []
    for update in run.updates:
        top, bottom = real_of(update.values, "value_max"), real_of(update.values, "value_min")
        if top is None or bottom is None:
            continue
        spread = top - bottom
        usual = median(spreads[-50:]) if len(spreads) >= 2 * HISTORY else None
        if usual and spread < health.VALUE_SPREAD_COLLAPSED * usual:
            low.append(update)
        else:
            low.clear()
            spreads.append(spread)
        if len(low) >= health.ALERT_UPDATES:
            yield Finding(
                "value_collapse",
                low[0].number,
                low[0].time,
                low[0].seq,
                f"value estimates spread over {spread:.3g}, {usual:.3g} before",
            )
            return
    warm = max(HISTORY, (run.planned_batches or 0) // 4)
    incidents = [
        each for each in run.incidents if each.kind == "value_collapse" and each.number > warm
    ]
    if len(incidents) >= STREAK:
        first = incidents[0]
        yield Finding("value_collapse", first.number, first.time, first.seq, first.detail)


def find_rollbacks(run: RunRecord) -> Iterator[Finding]:
    broken = [
        each for each in run.rollbacks if each.loss is not None and not math.isfinite(each.loss)
    ]
    envs = run.config.get("n_envs") or 1
    episodes = max(run.outcomes, run.done_batches * envs, 1)
    many = (
        len(run.rollbacks) >= health.ROLLBACKS
        and len(run.rollbacks) >= health.ROLLBACKS_PER_EPISODE * episodes
    )
    if not many and not broken:
        return
    first = run.rollbacks[0] if many else broken[0]
    loss = f", loss {first.loss:g}" if first.loss is not None else ""
    yield Finding(
        "rollbacks",
        first.number,
        first.time,
        first.seq,
        f"{len(run.rollbacks)} rollbacks in {episodes} episodes, the first: {first.reason}{loss}",
        env=first.env,
    )
