"""PromQL of the dashboards: selectors that follow the variables, and the forms that recur."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.metrics.metric import columns_of

RUN = ("run_id", "group_id")
"""Labels that distinguish runs on a panel. Ranks of a run are one series, the worst one counts."""

WHERE = 'cluster=~"$cluster",job=~"$job"'
SCOPE = f'{WHERE},run_id=~"$run",group_id=~"$group"'
EVERY_RUN = f'{WHERE},group_id=~"$group"'
OF_ENV = SCOPE + ',env_id=~"$env"'
OF_SLOT = OF_ENV + ',slot_id=~"$slot"'
PROCESS = f'{WHERE},instance=~"$instance"'
PER_RANK = ("cluster", *RUN, "rank")
PER_PROCESS = ("cluster", "job", "instance")

WHOLE_RUN = re.compile(
    "esper_tamiyo_((head_|layer_)?(nonfinite_)?updates?_|head_update_|nonfinite_updates_|gradient_explosions_"
    "|finiteness_failures_|amp_overflows_|loss_scale_updates_|rollback_steps_zeroed_"
    "|trust_region_violations_|log_prob_underflows_)"
    "|esper_tolaria_batches_|esper_run_checkpoints_loaded_"
)
"""Counters of what all ranks of a run do together: each rank counts the same updates."""


def select(name: str, scope: str = SCOPE, /, **labels: str) -> str:
    """A selector: regexes where a value holds a variable or an alternative, else equality."""
    more = "".join(
        f',{label}{"=~" if "$" in value or "|" in value else "="}"{value}"'
        for label, value in labels.items()
    )
    return f"{name}{{{scope}{more}}}"


def by(aggregation: str, labels: tuple[str, ...], inner: str) -> str:
    """An aggregation over all labels but these."""
    return f"{aggregation} by ({', '.join(labels)}) ({inner})"


def worst(aggregation: str, name: str, *labels: str, scope: str = SCOPE, **matchers: str) -> str:
    """A gauge by run and ``labels``; ``max`` where high is bad, ``min`` where low is."""
    return by(aggregation, (*RUN, *labels), select(name, scope, **matchers))


def over_range(function: str, inner: str) -> str:
    """A function over the dashboard's whole time range."""
    return f"{function}({inner}[$__range])"


def rate(inner: str) -> str:
    """A counter's increase a second, over the shortest window that never misses a scrape."""
    return f"rate({inner}[$__rate_interval])"


@cache
def _labels_of(name: str) -> tuple[str, ...]:
    """All labels that the catalogue gives to a sample's name."""
    for metric in catalogue().metrics:
        for column in columns_of(metric):
            if metric.name + column.suffix == name:
                return (*metric.labels, *(label for label, _ in column.labels))
    raise ValueError(f"{name} is not in the catalogue")


def _own_labels(name: str) -> tuple[str, ...]:
    """The labels of a sample that say neither whose nor where it is."""
    return tuple(label for label in _labels_of(name) if label not in PER_RANK)


def once(name: str, inner: str) -> str:
    """What two Prometheus servers scraped, or two targets serve, once for each rank or process."""
    owner = PER_RANK if "run_id" in _labels_of(name) else PER_PROCESS
    return by("max", (*owner, *_own_labels(name)), inner)


def total(
    name: str,
    labels: tuple[str, ...],
    of: Callable[[str], str],
    scope: str = SCOPE,
    /,
    **matchers: str,
) -> str:
    """A counter by ``labels``: the sum of its ranks, or the highest one where all count the same.

    ``of`` turns the selector into the rate, the increase or the last value of each series.
    """
    each = once(name, of(select(name, scope, **matchers)))
    if not WHOLE_RUN.match(name):
        return by("sum", labels, each)
    if set(_own_labels(name)) - set(labels):
        each = by("sum", (*dict.fromkeys((*PER_RANK, *labels)),), each)
    if set(RUN) <= set(labels):
        return by("max", labels, each)
    # Of several runs together: the highest rank of each, and then their sum.
    return by("sum", labels, by("max", (*dict.fromkeys((*RUN, *labels)),), each))


def events(name: str, *labels: str, scope: str = SCOPE, **matchers: str) -> str:
    """What a run's counter grew by between two points of a graph, exactly.

    Each event is in one bar: the last value of this interval less the last one before it. A
    counter born above 0 grew by its first value; one that fell was reset and begins at 0.
    """
    return grown(name, (*RUN, *labels), scope, **matchers)


def grown(name: str, labels: tuple[str, ...], scope: str = SCOPE, /, **matchers: str) -> str:
    """A counter's exact growth between two points of a graph, by any labels."""

    def growth(selector: str) -> str:
        now = once(name, f"last_over_time({selector}[$__interval])")
        before = once(name, f"last_over_time({selector}[1h] offset $__interval)")
        return f"{now} - {before} >= 0 or {now}"

    return total(name, labels, growth, scope, **matchers)


def rates(name: str, *labels: str, scope: str = SCOPE, **matchers: str) -> str:
    """A run's counter a second."""
    return total(name, (*RUN, *labels), rate, scope, **matchers)


def so_far(name: str, *labels: str, scope: str = SCOPE, **matchers: str) -> str:
    """A run's counter as it stood last in the time range, a run's end included."""

    def last(selector: str) -> str:
        return over_range("last_over_time", selector)

    return total(name, (*RUN, *labels), last, scope, **matchers)


def mean_of_histogram(name: str, *labels: str, scope: str = SCOPE, **matchers: str) -> str:
    """The mean of what a histogram saw lately."""
    summed = rates(f"{name}_sum", *labels, scope=scope, **matchers)
    count = rates(f"{name}_count", *labels, scope=scope, **matchers)
    return f"{summed} / ({count} > 0)"


def quantile(share: float, name: str, *labels: str, scope: str = SCOPE, **matchers: str) -> str:
    """A quantile of what a histogram saw lately."""
    buckets = total(f"{name}_bucket", ("le", *RUN, *labels), rate, scope, **matchers)
    return f"histogram_quantile({share}, {buckets})"


def buckets(name: str, scope: str = SCOPE, /, **matchers: str) -> str:
    """How many observations of a histogram came between two points of a graph, by ``le``."""
    return grown(f"{name}_bucket", ("le",), scope, **matchers)


def few(inner: str, worst_last: str, count: int = 6) -> str:
    """The environments of ``inner`` that are the worst at the end of the time range.

    ``worst_last`` ranks them, the highest first, by a query of one moment: lines neither come nor
    go as the order changes.
    """
    ranked = f"topk by ({', '.join(RUN)}) ({count}, {worst_last})"
    return f"{inner} and on ({', '.join((*RUN, 'env_id'))}) ({ranked})"


def at_the_end(name: str, scope: str = SCOPE, sign: str = "") -> str:
    """A gauge by environment as it was last in the time range, at any drawn time."""
    last = f"last_over_time({select(name, scope)}[$__range] @ end())"
    return sign + by("max", (*RUN, "env_id"), last)


def state_number(
    name: str,
    label: str,
    numbers: Mapping[str, int],
    *labels: str,
    scope: str = SCOPE,
    **matchers: str,
) -> str:
    """The number of the state that a one-hot gauge is in, for a mapping back to words.

    Where ranks differ, the highest number is shown. Only what holds is put together: with the
    zeros the query takes more than twice as long.
    """
    arms = " or ".join(
        f"{number} * ({select(name, scope, **{label: state}, **matchers)} == 1)"
        for state, number in numbers.items()
    )
    return by("max", (*RUN, *labels), arms)
