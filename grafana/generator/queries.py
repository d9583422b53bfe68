"""PromQL of the dashboards: selectors that follow the variables, and the forms that recur."""

from __future__ import annotations

from collections.abc import Mapping

RUN = ("run_id", "group_id")
"""What tells runs apart on a panel. Ranks of a run are put together, the worst one counts."""

SCOPE = 'job=~"$job",run_id=~"$run",group_id=~"$group"'
EVERY_RUN = 'job=~"$job",group_id=~"$group"'
OF_ENV = SCOPE + ',env_id=~"$env"'
OF_SLOT = OF_ENV + ',slot_id=~"$slot"'
PROCESS = 'job=~"$job",instance=~"$instance"'


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


def increase(inner: str) -> str:
    """A counter's increase between two points of a graph."""
    return f"increase({inner}[$__rate_interval])"


def so_far(name: str, *labels: str, scope: str = SCOPE, **matchers: str) -> str:
    """A run's counter as it stood last in the time range, a run's end included."""
    last = over_range("last_over_time", select(name, scope, **matchers))
    return by("sum", (*RUN, *labels), last)


def mean_of_histogram(name: str, *labels: str, scope: str = SCOPE, **matchers: str) -> str:
    """The mean of what a histogram saw lately."""
    total = by("sum", (*RUN, *labels), rate(select(f"{name}_sum", scope, **matchers)))
    count = by("sum", (*RUN, *labels), rate(select(f"{name}_count", scope, **matchers)))
    return f"{total} / ({count} > 0)"


def quantile(share: float, name: str, *labels: str, scope: str = SCOPE, **matchers: str) -> str:
    """A quantile of what a histogram saw lately."""
    buckets = rate(select(f"{name}_bucket", scope, **matchers))
    return f"histogram_quantile({share}, {by('sum', ('le', *RUN, *labels), buckets)})"


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
