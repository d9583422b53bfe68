"""What one check found: good, worth knowing, or in the way, with a remedy."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, NOTE, PROBLEM = "good", "note", "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence on one subject; ``remedy`` says what to do about it, empty when nothing."""

    subject: str
    level: str
    sentence: str
    remedy: str = ""


def good(subject: str, sentence: str) -> Finding:
    """All is as it should be."""
    return Finding(subject, GOOD, sentence)


def note(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Not in the way, but worth knowing."""
    return Finding(subject, NOTE, sentence, remedy)


def problem(subject: str, sentence: str, remedy: str) -> Finding:
    """A run would not be watched as it should be."""
    return Finding(subject, PROBLEM, sentence, remedy)
