"""What a fleet costs a Prometheus: laws of growth, fitted to what was measured.

`benchmarks.scale_document` prints them beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fleet import DENSE_INTERVAL

MEASURED = Path(__file__).with_name("scale_measured.json")
ALLOWED = 0.2
"""How far a law may be from what was measured."""
QUIET_CORES = 0.6
"""What else a machine may do, the page server included, where durations mean something."""

Size = Mapping[str, float]
"""One size as `benchmarks.fleet.Measured` has it."""


@dataclass(frozen=True)
class Law:
    """A quantity as a sum of terms, each a coefficient times something known of the fleet."""

    name: str
    words: str
    unit: str
    scale: float
    terms: Sequence[Callable[[Size], float]]
    of_slim: bool = True
    """Whether it holds for slim pages, too."""

    def holds_for(self, size: Size) -> bool:
        """Whether it says something of this size."""
        return self.of_slim or not size.get("slim")


def _one(_: Size) -> float:
    return 1.0


def scraped(size: Size) -> float:
    """Samples of one scrape of all targets."""
    return size["targets"] * size["page_series"]


def _rate(size: Size) -> float:
    return scraped(size) / size["interval"]


def _evaluated(size: Size) -> float:
    """Runs whose rules are evaluated in 15 s."""
    return size["targets"] * size.get("evaluated", 1.0)


def _depth(size: Size) -> float:
    return size["targets"] * size["samples"] / size["series"]


LAWS = (
    Law(
        "series",
        "a + b × runs × series a page + c × runs (what rules record)",
        "series",
        1,
        (_one, scraped, lambda s: s["targets"]),
    ),
    Law(
        "samples_per_second",
        "a + b × runs × series a page / interval + c × runs (what rules record)",
        "samples a second",
        1,
        (_one, _rate, _evaluated),
    ),
    Law(
        "memory_bytes",
        "a + b × series",
        "memory resident, MB",
        1e6,
        (_one, lambda s: s["series"]),
    ),
    Law(
        "rules_samples",
        "a × runs + b × runs × samples a series",
        "samples that all rules read, once",
        1,
        (lambda s: s["targets"], _depth),
    ),
    Law(
        "cores",
        "a + b × samples a second + c × runs (their rules)",
        "CPU, cores",
        1,
        (_one, lambda s: s["samples_per_second"], _evaluated),
    ),
    Law(
        "board_samples",
        "a × runs + b × runs × samples a series",
        "samples that all queries of the fleet board read, once",
        1,
        (lambda s: s["targets"], _depth),
    ),
    Law(
        "wal_bytes",
        "a × samples + b × series",
        "write-ahead log, MB",
        1e6,
        (lambda s: s["samples"], lambda s: s["series"]),
    ),
    Law(
        "chunk_bytes",
        "a × samples + b × series",
        "chunks of a block, MB",
        1e6,
        (lambda s: s["samples"], lambda s: s["series"]),
    ),
    Law(
        "index_bytes", "a + b × series", "index of a block, MB", 1e6, (_one, lambda s: s["series"])
    ),
    Law(
        "page_bytes",
        "a × series a page",
        "a page, compressed, kB",
        1e3,
        (lambda s: s["page_series"],),
        of_slim=False,
    ),
)


def laws_of(sizes: Sequence[Size]) -> list[Law]:
    """The laws of what was measured at every size; earlier measurements lack some."""
    return [law for law in LAWS if all(law.name in size for size in sizes)]


def fit(law: Law, sizes: Sequence[Size]) -> list[float]:
    """The coefficients by which the law is off by least, relatively; none is below 0."""
    sizes = [size for size in sizes if law.holds_for(size)]
    rows = np.array([[term(size) / size[law.name] for term in law.terms] for size in sizes])
    used = list(range(len(law.terms)))
    while True:
        found, *_ = np.linalg.lstsq(rows[:, used], np.ones(len(sizes)), rcond=None)
        if len(used) == 1 or found.min() >= 0.0:
            break
        used.pop(int(found.argmin()))
    coefficients = [0.0] * len(law.terms)
    for place, value in zip(used, found, strict=True):
        coefficients[place] = float(value)
    return coefficients


def predict(law: Law, coefficients: Sequence[float], size: Size) -> float:
    """What the law says of a fleet of this size."""
    terms = zip(coefficients, law.terms, strict=True)
    return sum(coefficient * term(size) for coefficient, term in terms)


@dataclass(frozen=True)
class Model:
    """All laws with their coefficients."""

    coefficients: Mapping[str, list[float]]

    def of(self, runs: int, page_series: float) -> dict[str, float]:
        """What a Prometheus with so many runs costs in its first minutes, scraped every 15 s. Each
        law takes what those before it say."""
        found = {
            "targets": float(runs),
            "page_series": page_series,
            "interval": 15.0,
            "evaluated": 1.0,
        }
        for law in LAWS:
            if law.name in ("series", "samples_per_second", "memory_bytes", "cores", "page_bytes"):
                found[law.name] = predict(law, self.coefficients[law.name], found)
        return found


def model_of(sizes: Sequence[Size]) -> Model:
    """The model that fits these sizes."""
    return Model({law.name: fit(law, sizes) for law in laws_of(sizes)})


@dataclass(frozen=True)
class Measurements:
    """What was measured: fleets, the smallest first, and the same pages scraped every second."""

    when: str
    sizes: Sequence[Size]
    dense: Size
    """Scraped until chunks were full."""

    @property
    def quiet(self) -> bool:
        """Whether the machine did little else."""
        return all(size.get("other_cores", math.inf) < QUIET_CORES for size in self.sizes)

    @property
    def bytes_a_sample(self) -> float:
        """On disk, of full chunks."""
        return self.dense["chunk_bytes"] / self.dense["samples"]


def read(path: Path = MEASURED) -> Measurements:
    """What was measured. Raises StopIteration where nothing was scraped every second."""
    found = json.loads(path.read_text())
    ordered = sorted(found["sizes"], key=lambda size: (size["slim"], size["targets"]))
    return Measurements(
        found["when"],
        [size for size in ordered if size["interval"] > DENSE_INTERVAL],
        next(size for size in ordered if size["interval"] == DENSE_INTERVAL),
    )


def differences(sizes: Sequence[Size]) -> dict[tuple[str, float, float], float]:
    """How far each law is off at each size, as a share of what was measured."""
    model = model_of(sizes)
    return {
        (law.name, size["targets"], size["slim"]): predict(law, model.coefficients[law.name], size)
        / size[law.name]
        - 1.0
        for law in laws_of(sizes)
        for size in sizes
        if law.holds_for(size)
    }
