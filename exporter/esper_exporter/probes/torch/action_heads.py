"""The policy's action heads: their names, and how a policy declares them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from torch import nn

from esper_exporter.contract.tamiyo import HeadUpdatePayload
from esper_exporter.contract.vocabulary import AUX_HEADS, HEADS, canonical_head

MAX_HEADS = 64
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_FIELDS = HeadUpdatePayload.__struct_fields__


Heads = Mapping[str, int | None]
"""Action heads and their numbers of choices; None for a continuous head."""


def checked_heads(heads: Heads) -> dict[str, int | None]:
    """Heads and their numbers of choices. Raises ValueError for a name that could not be a label
    or means something else, and for an invalid number."""
    if not heads:
        raise ValueError("the policy has at least one head")
    if len(heads) > MAX_HEADS:
        raise ValueError(f"at most {MAX_HEADS} heads, got {len(heads)}")
    for head, choices in heads.items():
        if not isinstance(head, str) or not _NAME.fullmatch(head):
            raise ValueError(f"head {head!r}: letters, digits and underscores make a name")
        if head in AUX_HEADS:
            raise ValueError(f"head {head!r}: that is the critic's, in head_modules")
        if canonical_head(head) != head:
            raise ValueError(f"head {head!r}: the contract calls it {canonical_head(head)!r}")
        if choices is None:
            continue
        # Gymnasium's spaces have numpy's integers.
        if isinstance(choices, bool) or not isinstance(choices, Integral) or choices < 1:
            raise ValueError(
                f"head {head!r}: number of choices or None (continuous), got {choices!r}"
            )
    return {head: None if choices is None else int(choices) for head, choices in heads.items()}


_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")


def named_parameters(policy: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """A policy's parameters by the names that its author gave them: without what
    ``torch.compile``, FSDP, activation checkpointing and DistributedDataParallel put before."""
    inner = policy.module if type(policy).__name__ == "DistributedDataParallel" else policy
    return [
        (_WRAPPERS.sub("", name).removeprefix("."), parameter)
        for name, parameter in inner.named_parameters()
    ]


def members(
    parameters: list[nn.Parameter], modules: Mapping[str, nn.Module], heads: Iterable[str]
) -> dict[str, tuple[int, ...]]:
    """Head → places of its parameters among the policy's. Raises ValueError for a module that is
    no head's, or has none of the policy's parameters."""
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    found = {}
    for head, module in modules.items():
        if head not in (*heads, *AUX_HEADS):
            raise ValueError(f"unknown head {head!r} in head_modules")
        own = [places[id(p)] for p in module.parameters() if id(p) in places]
        if not own:
            raise ValueError(f"head {head!r}: its module has no parameters of the policy")
        found[head] = tuple(own)
    return found


def add_own_heads(found: dict[str, Any], heads: Iterable[str]) -> None:
    """Move the fields of heads that are not Tamiyo's into ``head_updates``: the contract has no
    fields named after them."""
    own = [head for head in heads if head not in HEADS]
    reported = {
        head: {
            field: found.pop(f"head_{head}_{field}")
            for field in _FIELDS
            if f"head_{head}_{field}" in found
        }
        for head in own
    }
    if own:
        found["head_updates"] = reported
