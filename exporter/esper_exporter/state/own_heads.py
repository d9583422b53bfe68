"""Policies whose action heads are not Tamiyo's: which there are, and what they did last."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import asdict

from esper_exporter.contract.tamiyo import TamiyoPolicyUpdatePayload
from esper_exporter.contract.vocabulary import AUX_HEADS, HEADS
from esper_exporter.state import counted
from esper_exporter.state.own_head import OwnHead
from esper_exporter.state.run import RunState

MAX_HEADS = 64
_TAKEN = frozenset((*HEADS, *AUX_HEADS))


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
        for head in run.heads:
            for counter, labels in counted.of_head(head):
                run.tallies.forget(counter, *labels)
        for head in heads:
            for counter, labels in counted.of_head(head):
                run.tallies.begin(counter, *labels)
        run.heads = heads
        run.latches.watch(heads)
        run.touched.policy = True


def own_gradient_nonfinite(payload: TamiyoPolicyUpdatePayload) -> bool:
    """Whether one of them says that its gradient is NaN or Inf."""
    told = (payload.head_updates or {}).values()
    return any(head.gradient_state == "nonfinite" for head in told)


def apply_own_heads(run: RunState, payload: TamiyoPolicyUpdatePayload) -> None:
    """What each of them did in an update. A head that was not named has no metrics."""
    if payload.head_updates is None:
        return
    before = run.own_heads
    run.own_heads = {
        head: OwnHead(
            **asdict(told),
            grad_norm_prev=before[head].grad_norm if head in before else None,
        )
        for head, told in payload.head_updates.items()
        if head in run.heads and head not in _TAKEN
    }
