"""Assign gradients to optimizer steps, however a loop clips, splits or freezes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Indices = frozenset[int]
Numbered = list[tuple[int, Tensor]]
_NONE: Indices = frozenset()


class GradientSteps:
    """Groups measurements of gradients into optimizer steps, for one update.

    A step is over when a parameter is measured again: actor and critic clipped apart are one step,
    the next minibatch's clipping begins another.
    """

    def __init__(self, places: Mapping[int, int]) -> None:
        """``places`` maps the id of each of the policy's parameters to its number."""
        self._places = places
        self._measured: Indices = _NONE
        self._used: Indices = _NONE
        self._whole: Sequence[int] = ()
        """What was measured, if it was measured at once: the common case, which costs little."""
        self._owned: dict[int, tuple[int, Numbered, Indices]] = {}
        self.number = 0

    def mine(self, parameters: Sequence[Tensor]) -> Numbered:
        """The policy's parameters among these that have a gradient, as (number, parameter)."""
        places = self._places
        return [(places[id(p)], p) for p in parameters if id(p) in places and p.grad is not None]

    def measured(self, indices: Sequence[int]) -> int:
        """Note that these were measured; returns the number of their step."""
        if indices == self._whole:
            self.number += 1
            self._used = _NONE
            return self.number
        now = frozenset(indices)
        if not self._measured.isdisjoint(now):
            self.number += 1
            self._measured = self._used = _NONE
        self._whole = () if self._measured else indices
        self._measured |= now
        return self.number

    def left_to_measure(self, optimizer: torch.optim.Optimizer) -> Numbered:
        """Of the parameters that an optimizer uses now, those that nothing has measured since an
        optimizer used them last."""
        owned, numbers = self._of(optimizer)
        if numbers <= self._measured and numbers.isdisjoint(self._used):
            return []
        seen = self._measured - self._used
        return [(place, p) for place, p in owned if p.grad is not None and place not in seen]

    def used(self, optimizer: torch.optim.Optimizer) -> None:
        """Note that an optimizer uses their gradients; after `measured`."""
        owned, numbers = self._of(optimizer)
        if not numbers <= self._measured:
            numbers = frozenset(place for place, p in owned if p.grad is not None)
        self._used = self._used | numbers if self._used else numbers

    def _of(self, optimizer: torch.optim.Optimizer) -> tuple[Numbered, Indices]:
        """The policy's parameters that an optimizer has, looked up once an update."""
        groups = optimizer.param_groups
        count = len(groups[0]["params"])
        if len(groups) > 1:
            count = sum(len(group["params"]) for group in groups)
        known = self._owned.get(id(optimizer))
        if known is None or known[0] != count:
            places = self._places
            parameters = [p for group in groups for p in group["params"]]
            owned = [(places[id(p)], p) for p in parameters if id(p) in places]
            known = (count, owned, frozenset(place for place, _ in owned))
            self._owned[id(optimizer)] = known
        return known[1], known[2]
