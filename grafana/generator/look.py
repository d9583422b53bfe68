"""Colours, thresholds and words: what good and bad look like, the same on every dashboard.

Good, warning and bad can be told apart with any colour vision, and wherever a colour is the whole
message a word or a sign stands with it. What is missing is grey and NaN is purple, never green.
"""

from __future__ import annotations

from grafana.generator.model import Json

GOOD = "#1f9e75"
WARNING = "#e5a823"
BAD = "#d4403a"
NEUTRAL = "#4f7fbf"
MISSING = "#6c6f78"
NAN = "#a352cc"
DIM = "text"

Steps = tuple[tuple[float | None, str], ...]

HEAD_COLORS = {
    "op": "#e69f00",
    "slot": "#56b4e9",
    "blueprint": "#009e73",
    "style": "#f0e442",
    "tempo": "#3f7fd0",
    "alpha_target": "#d55e00",
    "alpha_speed": "#cc79a7",
    "alpha_curve": "#b0b4bd",
}
"""Okabe and Ito's palette, which all kinds of colour vision can tell apart; grey for black."""

THING_COLORS = (
    "#3f7fd0",
    "#e69f00",
    "#56b4e9",
    "#cc79a7",
    "#f0e442",
    "#8e6bd0",
    "#b0b4bd",
    "#a0693a",
    "#00b8b8",
    "#7a86c8",
    "#d8b98a",
    "#b3e0ff",
    "#e2c6f5",
    "#8a9a3c",
    "#f7f3d0",
    "#b84fd8",
)
"""Of runs and environments, by their names; neither red nor green, which would say that one is ill
or well."""

OP_COLORS = {
    "WAIT": "#8a8d96",
    "GERMINATE": "#009e73",
    "SET_ALPHA_TARGET": "#56b4e9",
    "PRUNE": "#d55e00",
    "FOSSILIZE": "#3f7fd0",
    "ADVANCE": "#f0e442",
}
"""The panel document's colours of the operations: grow green, prune red, fossilise blue."""


def rising(warning: float, critical: float, start: float = 0.0) -> Steps:
    """High is bad. Grey below ``start``, where no value can be."""
    return ((None, MISSING), (start, GOOD), (warning, WARNING), (critical, BAD))


def falling(warning: float, critical: float, start: float = 0.0) -> Steps:
    """Low is bad. Grey below ``start``, where no value can be."""
    return ((None, MISSING), (start, BAD), (critical, WARNING), (warning, GOOD))


def within(warning: tuple[float, float], critical: tuple[float, float]) -> Steps:
    """Good inside ``warning``, bad outside ``critical``, for values of 0 and above."""
    return (
        (None, MISSING),
        (0.0, BAD),
        (critical[0], WARNING),
        (warning[0], GOOD),
        (warning[1], WARNING),
        (critical[1], BAD),
    )


def any_is_bad(color: str = BAD) -> Steps:
    """A count that should be 0."""
    return ((None, MISSING), (0.0, GOOD), (1e-9, color))


PLAIN: Steps = ((None, DIM),)


def lines(*bounds: tuple[float, str]) -> Steps:
    """Bounds to draw as lines across a time series."""
    return ((None, "transparent"), *bounds)


def value(number: int | float | str, text: str, color: str) -> tuple[str, Json]:
    """One value and what to show for it."""
    return str(number), {"text": text, "color": color}


def values(*pairs: tuple[str, Json]) -> Json:
    """A mapping from values to words and colours."""
    options = {key: {**result, "index": i} for i, (key, result) in enumerate(pairs)}
    return {"type": "value", "options": options}


def _special(match: str, text: str, color: str, index: int) -> Json:
    result = {"text": text, "color": color, "index": index}
    return {"type": "special", "options": {"match": match, "result": result}}


NO_DATA = "n/a"
"""Shown where nothing was measured; short, or a narrow tile cuts it."""


def absent(nan: str = "NaN", missing: str = NO_DATA) -> tuple[Json, ...]:
    """What is missing is grey; what is not a number says so."""
    return (_special("null", missing, MISSING, 90), _special("nan", nan, NAN, 91))


HEAD_STATES: dict[str, tuple[int, str, str]] = {
    # The higher, the worse: where ranks differ, the worst is shown.
    "unknown": (0, "? unknown", MISSING),
    "indeterminate": (1, "● indeterminate", MISSING),
    "healthy": (2, "● healthy", GOOD),
    "deterministic": (3, "◇ deterministic", MISSING),
    "confused": (4, "◐ confused", WARNING),
    "collapsed": (5, "◇ collapsed", WARNING),
    "exploding": (6, "▲ exploding", BAD),
    "dead": (7, "○ dead", BAD),
}
"""Number, sign and colour of each head state, signs and colours by the panel document."""

STAGES: dict[str, tuple[int, str, str]] = {
    "DORMANT": (1, "· dormant", "#44474f"),
    "GERMINATED": (2, "germinated", "#b5a642"),
    "TRAINING": (3, "training", "#e69f00"),
    "BLENDING": (4, "blending", "#56b4e9"),
    "HOLDING": (5, "holding", "#cc79a7"),
    "FOSSILIZED": (6, "◆ fossilised", "#3f7fd0"),
    "PRUNED": (7, "✕ pruned", "#d55e00"),
    "EMBARGOED": (8, "embargoed", "#7a4a2f"),
    "RESETTING": (9, "resetting", "#8a8d96"),
}

ENV_STATUSES: dict[str, tuple[int, str, str]] = {
    "initializing": (1, "… initialising", MISSING),
    "excellent": (2, "★ excellent", GOOD),
    "healthy": (3, "● healthy", GOOD),
    "stalled": (4, "‖ stalled", WARNING),
    "degraded": (5, "▼ degraded", BAD),
}

RUN_STATES: dict[str, tuple[int, str, str]] = {
    "running": (1, "▶ running", GOOD),
    "finished": (2, "■ finished", NEUTRAL),
    "superseded": (3, "» superseded", MISSING),
    "stalled": (4, "‖ stalled", WARNING),
    "gone": (5, "? gone", WARNING),
    "failed": (6, "✕ failed", BAD),
}


def coded(states: dict[str, tuple[int, str, str]]) -> Json:
    """The mapping from a state's number to its sign, word and colour."""
    return values(*(value(number, text, color) for number, text, color in states.values()))


LATCH = values(value(0, "○", DIM), value(1, "● latched", BAD))
