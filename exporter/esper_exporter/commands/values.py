"""Types of command-line values, and their error messages."""

from __future__ import annotations

import argparse
import math
import re

_LABEL = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)=(.*)", re.DOTALL)


def label(text: str) -> tuple[str, str]:
    """A label that a server would add to what it scrapes: ``job=esper``."""
    found = _LABEL.fullmatch(text)
    if found is None or found[1].startswith("__"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a label; write NAME=VALUE")
    return found[1], found[2]


def whole_number(text: str) -> int:
    """A non-negative whole number."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def port(text: str) -> int:
    """A TCP port; 0 means any free one."""
    number = whole_number(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port; ports end at 65535")
    return number


def speed(text: str) -> float:
    """A factor of recorded time; 0 means full speed."""
    try:
        speed = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(speed) or speed < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a speed; 1 is recorded time, 0 full speed")
    return speed


def seconds(text: str) -> float:
    """A positive time span in seconds."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(number) or number < 0.001:
        raise argparse.ArgumentTypeError(f"{text} is not a time span; samples have milliseconds")
    return number
