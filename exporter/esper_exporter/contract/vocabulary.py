"""The fixed words of the contract: heads, operations, choices, stages and states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

AUX_HEADS = ("value", "q")
"""Critic heads: they have a gradient norm and a gradient state, but choose nothing."""

OPS = ("WAIT", "GERMINATE", "SET_ALPHA_TARGET", "PRUNE", "FOSSILIZE", "ADVANCE")
"""Choices of the op head, in the order of ``op_q_values`` and ``op_valid_mask``."""

BLUEPRINTS = (
    "noop",
    "conv_light",
    "attention",
    "norm",
    "depthwise",
    "bottleneck",
    "conv_small",
    "conv_heavy",
    "lora",
    "lora_large",
    "mlp_small",
    "mlp",
    "flex_attention",
)
STYLES = ("LINEAR_ADD", "LINEAR_MULTIPLY", "SIGMOID_ADD", "GATED_GATE")
TEMPOS = ("FAST", "STANDARD", "SLOW")
ALPHA_TARGETS = ("HALF", "SEVENTY", "FULL")
ALPHA_SPEEDS = ("INSTANT", "FAST", "MEDIUM", "SLOW")
ALPHA_CURVES = ("LINEAR", "COSINE", "SIGMOID_GENTLE", "SIGMOID", "SIGMOID_SHARP")

OTHER = "other"
"""Label value of a choice outside the vocabulary."""


@dataclass(frozen=True, slots=True)
class ActionHead:
    """One action head of the policy.

    ``choices`` are None for the run's own slots, ``entropy_weight`` is the head's in the policy's
    ``entropy``, which is a weighted sum. A decision carries the head's choice in ``chosen_in`` and
    calls the head ``spelling``; both default to its name.
    """

    name: str
    choices: tuple[str, ...] | None
    entropy_weight: float = 1.0
    chosen_in: str = ""
    spelling: str = ""


ACTION_HEADS = (
    ActionHead("slot", None, chosen_in="slot_id"),
    ActionHead("blueprint", BLUEPRINTS, 1.3, chosen_in="blueprint_id"),
    ActionHead("style", STYLES, 1.2),
    ActionHead("tempo", TEMPOS, 1.3, chosen_in="tempo_idx"),
    ActionHead("alpha_target", ALPHA_TARGETS, 1.2),
    ActionHead("alpha_speed", ALPHA_SPEEDS, 1.2),
    ActionHead("alpha_curve", ALPHA_CURVES, 1.2, spelling="curve"),
    ActionHead("op", OPS, chosen_in="action_name"),
)
"""The policy's heads, in the order in which an action is factored. A new head is a line here: the
fields that events carry of it, its rows on the page and its counters follow."""

HEADS = tuple(head.name for head in ACTION_HEADS)

CHOICES_OF_HEAD = {head.name: head.choices for head in ACTION_HEADS if head.choices is not None}
"""Each head's choices; the slot head chooses among the run's own slots."""

CHOSEN_IN = {head.name: head.chosen_in or head.name for head in ACTION_HEADS}
"""The field of a decision that carries each head's choice."""

SPELLINGS = {head.name: head.spelling or head.name for head in ACTION_HEADS}
"""Each head as decisions spell it."""

STAGES = (
    "DORMANT",
    "GERMINATED",
    "TRAINING",
    "BLENDING",
    "HOLDING",
    "FOSSILIZED",
    "PRUNED",
    "EMBARGOED",
    "RESETTING",
)
"""Lifecycle stages of a seed slot."""

GRADIENT_STATES = ("finite", "missing", "nonfinite", "not_learnable")
GRAD_SCALER_STATES = ("growing", "stable", "decaying")
"""What the AMP loss scale did in an update."""

PHASES = ("forward", "backward", "optimizer", "data_transfer", "epoch")
"""Parts of a training step that are timed."""

ENV_STATUSES = ("initializing", "healthy", "excellent", "stalled", "degraded")

HEAD_ENTROPY_COEFFICIENTS = {head.name: head.entropy_weight for head in ACTION_HEADS}
"""Weight of each head's entropy in the policy's ``entropy``, which is their weighted sum."""

_HEAD_ALIASES = {spelled: name for name, spelled in SPELLINGS.items() if spelled != name}

OTHER_SPELLINGS = frozenset(_HEAD_ALIASES)
"""Names of heads that are not their canonical ones."""


def head_max_entropy(head: str, n_slots: int) -> float:
    """Entropy in nats of a head that chooses uniformly: the logarithm of its number of choices.

    ``n_slots`` is the number of slots of the run, the choices of the slot head; with no slot or a
    single one the entropy is 0. Raises ``KeyError`` for a name that is no action head.
    """
    choices = n_slots if head == "slot" else len(CHOICES_OF_HEAD[head])
    return math.log(choices) if choices > 1 else 0.0


MOST_SLOTS = 64


def head_max_choices(head: str) -> int:
    """The number of choices of one of the eight heads; of slots, which runs differ in, a bound.

    Raises ``KeyError`` for a name that is no action head.
    """
    return MOST_SLOTS if head == "slot" else len(CHOICES_OF_HEAD[head])


def canonical_head(name: str) -> str:
    """One name per head: decisions call the alpha curve head ``curve``; others are unchanged."""
    return _HEAD_ALIASES.get(name, name)


@lru_cache(maxsize=1024)
def normalize_action(name: str) -> str:
    """The operation behind a factored action (TELE-645): ``GERMINATE_CONV_LIGHT`` → ``GERMINATE``.

    A name that is neither an operation nor an operation with a suffix is returned unchanged.
    """
    for op in OPS:
        if name == op or name.startswith(op + "_"):
            return op
    return name
