"""The types that payload fields are declared with, beside ``float`` and ``bool``.

To everybody who uses a payload they are plain ``int``, ``str`` and ``float``; the limits that they
carry are checked once, when a payload is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from esper_exporter.contract.scalars import MAX_LABEL

MAX_ENV_ID = 1_000_000
SMALLEST_WHOLE, LARGEST_WHOLE = -(2**63), 2**64 - 1

Whole = Annotated[int, Meta(ge=SMALLEST_WHOLE, le=2**63 - 1, title="whole")]
"""An integer of 64 bits; an unsigned one is read as well."""

Count = Annotated[int, Meta(ge=0, le=2**63 - 1, title="count")]
"""A count that only grows and is exported as a counter, which cannot be negative."""

GradientState = Literal["finite", "missing", "nonfinite", "not_learnable"]
"""What became of a head's gradient. Another word is read as well, as a plain name."""

Seed = Annotated[int, Meta(ge=SMALLEST_WHOLE, title="seed")]
"""The seed of a random number generator: mostly an unsigned integer of 64 bits."""

EnvId = Annotated[int, Meta(ge=0, le=MAX_ENV_ID, title="env_id")]
"""The number of an environment. An event with another value is rejected."""

Text = Annotated[str, Meta(title="text")]
"""Free text, cut at 4096 characters. A plain ``str`` names something: 256 characters at most."""

Label = Annotated[str, Meta(max_length=MAX_LABEL, title="label")]
"""What names an entry of a mapping. A plain ``str`` names something too; its length is checked
after it was converted."""

Head = Annotated[str, Meta(max_length=MAX_LABEL, title="head")]
"""The name of an action head, under its one spelling."""

if TYPE_CHECKING:
    TextFloat = float
else:

    class _IsFloat(type):
        # As a method of C: msgspec asks for each value that it has converted.
        __instancecheck__ = float.__instancecheck__

    class TextFloat(metaclass=_IsFloat):
        """A float that the real system's file output writes as a text, and that is a numpy scalar
        in its live events."""
