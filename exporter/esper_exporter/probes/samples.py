"""How a probe hands over numbers: each by where on the page it belongs."""

from __future__ import annotations

from collections.abc import Mapping

Cell = tuple[str, ...]
"""A metric's name, then the values of the labels that are its own."""

Cells = Mapping[Cell, float]
"""What was measured. What was not is not in it."""
