"""NaN and Inf latches: once lit, lit until the run ends (TELE-303).

Two ways lead to a latch, and both belong to the same update: the flags of a policy update that
was only partly hit, and the text of the anomaly that is all that remains when the whole update was
skipped. An update lights and counts a latch once, however it was reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from esper_exporter.contract.vocabulary import HEADS, canonical_head

KINDS = ("nan", "inf")

NONFINITE_SOURCES = (
    "log_probs",
    "ref_log_probs",
    "values",
    "q_values",
    "returns",
    "advantages",
    "td_errors",
    "loss",
    "ratio",
    "gradients",
    "weights",
    "lstm",
    "observations",
    "other",
)
"""Where non-finite numbers were seen, whatever the head."""

LAYER_SOURCES = frozenset({"gradients", "weights", "loss"})
"""Sources of which a layer or a loss may be named, not a head."""

FINITENESS_ANOMALIES = frozenset({"ppo_finiteness_skip", "ppo_finiteness_failure"})
"""The anomaly types whose detail names sources. ``numerical_instability`` is not one of them: it
also comes for an explained variance that is NaN by design."""

# "log_probs[tempo]: NaN detected", "ref_log_probs[op]: 3 non-finite", "values: 2 non-finite"
_SOURCE = re.compile(r"\b([A-Za-z_]\w*)(?:\[([^\]]{1,256})\])?: *([^;]*)")
_PREAMBLE = re.compile(r".*(?:Sources:|skipped updates:)", re.DOTALL)


@dataclass(slots=True)
class Latch:
    """One indicator light: how many updates lit it, when first and last, and which one first."""

    updates: int = 0
    first: datetime | None = None
    last: datetime | None = None
    first_update: int | None = None
    first_batch: int | None = None
    attempt: int = -1

    @property
    def lit(self) -> bool:
        return self.updates > 0

    def light(
        self, when: datetime, attempt: int, update: int | None, batch: int | None = None
    ) -> bool:
        """Light it for one update, the ``update``-th of ``batch``; False if this update had lit it
        already."""
        if self.attempt == attempt and self.lit:
            return False
        self.attempt = attempt
        if not self.updates:
            self.first_batch = batch
        self.updates += 1
        if self.first is None or when < self.first:
            self.first = when
        if self.last is None or when > self.last:
            self.last = when
        if self.first_update is None:
            self.first_update = update
        return True


@dataclass(frozen=True, slots=True)
class Finding:
    """One non-finite source that an anomaly's text names."""

    source: str
    head: str | None
    kinds: tuple[str, ...]


def parse_finiteness_detail(detail: str) -> list[Finding]:
    """The sources named in the detail of a finiteness anomaly.

    A text that says only "non-finite" names neither NaN nor Inf; it counts as ``nan``, so that
    the head still shows and the alert still fires.
    """
    preamble = _PREAMBLE.match(detail)
    named = detail[preamble.end() :] if preamble else detail
    findings = []
    for name, head, text in _SOURCE.findall(named):
        lowered = text.lower()
        kinds = tuple(kind for kind in KINDS if re.search(rf"\b{kind}", lowered))
        source = "ref_log_probs" if name in ("ref_log_probs", "old_log_probs") else name
        findings.append(
            Finding(
                source if source in NONFINITE_SOURCES else "other",
                canonical_head(head) if head else None,
                kinds or ("nan",),
            )
        )
    return findings


class Latches:
    """All latches of one run: one per head and kind, one per source."""

    def __init__(self, heads: Iterable[str] = HEADS) -> None:
        self.heads: dict[tuple[str, str], Latch] = {
            (head, kind): Latch() for head in heads for kind in KINDS
        }
        self.sources: dict[str, Latch] = {source: Latch() for source in NONFINITE_SOURCES}
        self.changed = True
        self.lightings = 0

    def watch(self, heads: Iterable[str]) -> None:
        """From now on these heads have latches. A latch that is lit stays, whosever it is."""
        wanted = {(head, kind) for head in heads for kind in KINDS}
        kept = {key: latch for key, latch in self.heads.items() if latch.lit or key in wanted}
        self.heads = kept | {key: Latch() for key in sorted(wanted - kept.keys())}
        self.changed = True

    def light_head(
        self,
        head: str,
        kind: str,
        when: datetime,
        attempt: int,
        update: int | None = None,
        batch: int | None = None,
    ) -> None:
        """Light a head's latch. A head that the policy did not name is no reason to lose a
        fault: it lights the source ``other``."""
        latch = self.heads.get((head, kind))
        if latch is None:
            self.light_source("other", when, attempt, update)
        elif latch.light(when, attempt, update, batch):
            self.changed = True
            self.lightings += 1

    def light_source(
        self, source: str, when: datetime, attempt: int, update: int | None = None
    ) -> None:
        """Light a source's latch."""
        if self.sources[source].light(when, attempt, update):
            self.changed = True
            self.lightings += 1

    def light_flags(
        self,
        kind: str,
        flags: Mapping[str, bool] | None,
        when: datetime,
        attempt: int,
        update: int | None,
        batch: int | None = None,
    ) -> None:
        """The flags of a policy update, ``{head: detected}``."""
        for head, detected in (flags or {}).items():
            if detected:
                self.light_head(head, kind, when, attempt, update, batch)
                self.light_source("log_probs", when, attempt, update)

    def light_detail(
        self,
        detail: str,
        when: datetime,
        attempt: int,
        update: int | None = None,
        batch: int | None = None,
    ) -> None:
        """The sources named in a finiteness anomaly; a text that names none still counts."""
        findings = parse_finiteness_detail(detail)
        if not findings:
            self.light_source("other", when, attempt, update)
        for finding in findings:
            self.light_source(finding.source, when, attempt, update)
            if finding.head is not None and finding.source not in LAYER_SOURCES:
                for kind in finding.kinds:
                    self.light_head(finding.head, kind, when, attempt, update, batch)

    def add(self, earlier: Latches) -> None:
        """Add what earlier processes saw of the same run to what this one saw since."""
        for mine, theirs in ((self.heads, earlier.heads), (self.sources, earlier.sources)):
            _add(mine, theirs)
        self.changed = True

    def lit(self) -> int:
        """How many latches are lit."""
        return sum(
            latch.lit for latches in (self.heads, self.sources) for latch in latches.values()
        )

    def lit_names(self) -> tuple[str, ...]:
        """The lit latches as a person reads them: ``op/nan`` for a head's, then the sources."""
        return (
            *(f"{head}/{kind}" for head, kind in self.lit_heads()),
            *(source for source, latch in self.sources.items() if latch.lit),
        )

    def lit_heads(self) -> Iterator[tuple[str, str]]:
        """The (head, kind) pairs that are lit."""
        return (key for key, latch in self.heads.items() if latch.lit)


def _add(known: dict[Any, Latch], earlier: Mapping[Any, Latch]) -> None:
    for key, latch in earlier.items():
        found = known.get(key)
        if not latch.lit:
            continue
        if found is None or not found.lit:
            known[key] = latch
            continue
        found.updates += latch.updates
        found.first, found.first_update = latch.first, latch.first_update
        found.first_batch = latch.first_batch
