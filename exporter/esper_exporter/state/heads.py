"""The policy's heads: which there are, and what each did in the last update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from esper_exporter.contract.tamiyo import HeadUpdatePayload
from esper_exporter.contract.vocabulary import AUX_HEADS, HEADS
from esper_exporter.state import counted
from esper_exporter.state.head_state import HeadState
from esper_exporter.state.run import RunState

MAX_HEADS = 64


def see_heads(run: RunState, named: Iterable[str] | None) -> None:
    """The policy's heads, where it names them; those of the vocabulary come first."""
    if not named:
        return
    chosen = dict.fromkeys(head for head in named if head not in AUX_HEADS)
    heads = (
        *(head for head in HEADS if head in chosen),
        *[head for head in chosen if head not in HEADS][:MAX_HEADS],
    )
    if heads and heads != run.heads:
        run.settle_updates(run)  # those before had the heads of before
        for head in run.heads:
            for counter, labels in counted.of_head(head):
                run.tallies.forget(counter, *labels)
        for head in heads:
            for counter, labels in counted.of_head(head):
                run.tallies.begin(counter, *labels)
        run.heads = heads
        run.latches.watch(heads)
        run.touched.policy |= run.bare_snapshot.tamiyo.ppo_data_received


def apply_heads(run: RunState, updates: Mapping[str, HeadUpdatePayload]) -> None:
    """What each head did in an update. A head that the policy does not have has no metrics."""
    tamiyo = run.bare_snapshot.tamiyo
    before = tamiyo.heads
    tamiyo.heads = {
        head: HeadState.of(update, before.get(head))
        for head, update in updates.items()
        if head in run.heads or head in AUX_HEADS
    }
