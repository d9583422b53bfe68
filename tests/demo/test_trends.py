"""What accuracies give rise to: better, worse, standing still, an environment that fell behind."""

from __future__ import annotations

from esper_exporter.demo.accuracy_trend import Trends


def names(*batches: list[float]) -> list[list[str]]:
    trends = Trends()
    return [[name for name, _ in trends.see(batch)] for batch in batches]


def test_the_first_batch_has_nothing_to_compare_with() -> None:
    assert names([50.0, 60.0]) == [[]]


def test_the_rolling_mean_rises_falls_or_stagnates() -> None:
    assert names([50.0], [52.0], [49.0], [50.333]) == [
        [], ["IMPROVEMENT_DETECTED"], ["DEGRADATION_DETECTED"], ["PLATEAU_DETECTED"],
    ]  # fmt: skip
    assert names([50.0], [50.5]) == [[], []]


def test_an_environment_that_fell_behind_is_reported_by_number() -> None:
    trends = Trends()
    trends.see([50.0, 50.0])
    reported = dict(trends.see([44.0, 56.0]))
    fallen = reported["PERFORMANCE_DEGRADATION"]
    assert fallen["env_id"] == 0
    assert fallen["drop_percent"] == 12.0
    assert fallen["rolling_avg_acc"] == 50.0


def test_only_the_last_ten_batches_count() -> None:
    trends = Trends()
    for accuracy in [0.5, *[50.0] * 10]:
        trends.see([accuracy])
    assert trends.rolling == 50.0
