"""Reading a page as a scraper does."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Key = tuple[str, tuple[tuple[str, str], ...]]


def samples(page: str) -> dict[Key, float]:
    """Every sample of a page in the text format, by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def values(page: str, name: str, **labels: str) -> list[float]:
    """The values of all samples of a name that carry these labels."""
    wanted = set(labels.items())
    return [v for (found, has), v in samples(page).items() if found == name and wanted <= set(has)]


def value(page: str, name: str, **labels: str) -> float | None:
    """The value of the one sample of a name that carries these labels; None where there is none."""
    found = values(page, name, **labels)
    assert len(found) <= 1, f"{name}{labels} has {len(found)} samples"
    return found[0] if found else None
