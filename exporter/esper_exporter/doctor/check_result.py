"""The result of one check: good, a note, or a problem with a remedy."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, NOTE, PROBLEM = "good", "note", "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence on one subject; ``remedy`` says what to do, empty if nothing."""

    subject: str
    level: str
    sentence: str
    remedy: str = ""


def good(subject: str, sentence: str) -> Finding:
    """A check that passed."""
    return Finding(subject, GOOD, sentence)


def note(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Worth knowing, but not a problem."""
    return Finding(subject, NOTE, sentence, remedy)


def problem(subject: str, sentence: str, remedy: str) -> Finding:
    """A problem: a run would not be monitored properly."""
    return Finding(subject, PROBLEM, sentence, remedy)
