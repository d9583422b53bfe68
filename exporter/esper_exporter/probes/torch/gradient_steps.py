"""Which gradients belong to which optimizer step, however a loop clips, splits or freezes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

Indices = frozenset[int]


class GradientSteps:
    """Groups measurements of gradients into optimizer steps.

    A step is over when a parameter is measured again: actor and critic clipped apart are one step,
    the next minibatch's clipping begins another.
    """

    def __init__(self, places: Mapping[int, int]) -> None:
        """``places`` maps the id of each of the policy's parameters to its number."""
        self._places = places
        self._measured: Indices = frozenset()
        self._used: Indices = frozenset()
        self.number = 0

    def mine(self, parameters: Iterable[Tensor]) -> list[tuple[int, Tensor]]:
        """The policy's own among these that have a gradient, as (number, parameter)."""
        places = self._places
        return [(places[id(p)], p) for p in parameters if p.grad is not None and id(p) in places]

    def measured(self, indices: Sequence[int]) -> int:
        """These were measured now; the number of the step that they belong to."""
        now = frozenset(indices)
        if self._measured & now:
            self.number += 1
            self._measured = self._used = frozenset()
        self._measured |= now
        return self.number

    def left_to_measure(self, used: Sequence[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
        """Of the parameters that an optimizer uses now, those that nothing has measured since an
        optimizer used them last."""
        seen = self._measured - self._used
        return [(index, p) for index, p in used if index not in seen]

    def used(self, parameters: Sequence[tuple[int, Tensor]]) -> None:
        """An optimizer has used their gradients; after `measured`."""
        self._used |= frozenset(index for index, _ in parameters)
