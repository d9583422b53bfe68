"""The fixed words of the contract: heads, operations, choices, stages and states."""

from __future__ import annotations

import math
from functools import lru_cache

HEADS = (
    "slot",
    "blueprint",
    "style",
    "tempo",
    "alpha_target",
    "alpha_speed",
    "alpha_curve",
    "op",
)
"""The eight action heads of the policy, in the order in which an action is factored."""

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

CHOICES_OF_HEAD: dict[str, tuple[str, ...]] = {
    "op": OPS,
    "blueprint": BLUEPRINTS,
    "style": STYLES,
    "tempo": TEMPOS,
    "alpha_target": ALPHA_TARGETS,
    "alpha_speed": ALPHA_SPEEDS,
    "alpha_curve": ALPHA_CURVES,
}
"""Each head's choices; the slot head chooses among the run's own slots."""

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

HEAD_ENTROPY_COEFFICIENTS = {
    "slot": 1.0,
    "blueprint": 1.3,
    "style": 1.2,
    "tempo": 1.3,
    "alpha_target": 1.2,
    "alpha_speed": 1.2,
    "alpha_curve": 1.2,
    "op": 1.0,
}
"""Weight of each head's entropy in the policy's ``entropy``, which is their weighted sum."""

HOST_LSTM_LAYERS = 4
"""Layers of the policy's LSTM body today (12 in the ActionHeadsPanel document)."""

_HEAD_ALIASES = {"curve": "alpha_curve"}

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
