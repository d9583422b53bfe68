"""Ways from one dashboard to another, and to the exporter's own page."""

from __future__ import annotations

from grafana.generator.model import Json

_KEPT = "${datasource:queryparam}&${job:queryparam}&${cluster:queryparam}"


def _field(name: str) -> str:
    return f'${{__data.fields["{name}"]}}'


def to_board(uid: str, title: str, *, during: tuple[str, str] | None = None, **chosen: str) -> Json:
    """A table row's link to a dashboard, with the row's columns as its variables.

    ``chosen`` is variable to column. The time range is kept, or it is that of two columns that
    hold its ends in milliseconds.
    """
    variables = "".join(f"&var-{name}={_field(column)}" for name, column in chosen.items())
    if during is None:
        return {"title": title, "url": f"/d/{uid}?{_KEPT}{variables}&${{__url_time_range}}"}
    began, ended = (f'${{__data.fields["{name}"].numeric}}' for name in during)
    return {"title": title, "url": f"/d/{uid}?{_KEPT}{variables}&from={began}&to={ended}"}


PAGE_LINK: Json = {
    "title": "Page of the exporter or agent",
    "url": "http://${__value.raw}/",
    "targetBlank": True,
}
"""For a column that holds an address; the page answers for as long as the process does."""
