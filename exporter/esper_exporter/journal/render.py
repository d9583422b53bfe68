"""Reports as Markdown and as one HTML page with inline SVG."""

from __future__ import annotations

import html as html_text
import math
from collections.abc import Sequence
from typing import Any

from esper_exporter.journal.report import Report, headline

_WIDTH, _HEIGHT, _PAD = 640, 150, 36
_DRAWN = 1e300
"""Values beyond it are not drawn: their difference may overflow."""
_NARROWEST = 0.05
"""Share of a value that a plot's axis spans at least."""

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 1.8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.15rem 0.7rem 0.15rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid #8886; }
.verdict { padding: 0.7rem 1rem; border-left: 4px solid #888; background: #8881; }
.failed, .stopped { border-color: #c92a2a; } .unhealthy { border-color: #e08700; }
.healthy, .running { border-color: #2b8a3e; }
.scroll { overflow-x: auto; } .scroll td:first-child { white-space: nowrap; padding-right: 1rem; }
 svg { max-width: 100%; height: auto; } svg text { font-size: 11px; }
code { font-size: 0.9em; }
"""


def markdown(report: Report) -> str:
    """The report as Markdown."""
    lines = [f"# Run {_plain(report['run_id'])}", "", f"**{_plain(report['summary'])}**", ""]
    lines += [f"- {name}: {_plain(value)}" for name, value in headline(report)]
    if report["before"]:
        lines += ["", "## Before", ""]
        lines += rows(["update", "what moved", "value", "usual", "times"], _moved(report))
    if report["followed"]:
        lines += ["", "## What followed", ""]
        lines += [f"- {_plain(text)}" for text in _followed(report)]
    lines += ["", "## Timeline", ""]
    lines += [f"- `{each['time'] or '-'}` {_plain(each['what'])}" for each in report["timeline"]]
    for item in report["evidence"]:
        lines += ["", f"## {item['title']}", ""]
        if item["kind"] == "table":
            lines += rows(item["columns"], item["rows"])
        else:
            lines += ["```", _spark(item), "```"]
    for title, name in (("What to try", "try"), ("What is not known", "unknown")):
        if report[name]:
            lines += ["", f"## {title}", ""]
            lines += [f"{n}. {text}" for n, text in enumerate(report[name], 1)]
    if report["runbook"]:
        lines += ["", f"Runbook: `{report['runbook']}`"]
    return "\n".join(lines) + "\n"


def escape(text: Any) -> str:
    """A text for HTML, without unprintable characters."""
    return html_text.escape(_printable(text))


def _printable(text: Any) -> str:
    return "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(text)
    )


def _plain(text: Any) -> str:
    """A text of telemetry must not make a table, a link or a terminal's control sequence."""
    shown = _printable(text)
    shown = shown.replace("](", "]\\(").replace("|", "\\|")
    return shown.replace("<", "&lt;").replace("`", "'")


def _moved(report: Report) -> list[list[Any]]:
    return [
        [each["update"], each["what"], each["value"], each["usual"], each["times"]]
        for each in report["before"]
    ]


def _followed(report: Report) -> list[str]:
    texts = []
    for each in report["followed"]:
        where = f"update {each['update']}: " if each["update"] is not None else ""
        link = "" if each["follows"] else " (not known to follow from the first cause)"
        texts.append(f"{where}{each['cause']}: {each['detail']}{link}")
    return texts


def rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table whose columns are aligned in a terminal too."""
    cells = [list(columns), *([_plain(_shown(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return [texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:]]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _finite(plot: dict[str, Any]) -> list[tuple[float, float]]:
    return [
        (x, y)
        for x, y in zip(plot["x"], plot["y"], strict=True)
        if isinstance(y, int | float) and abs(y) < _DRAWN
    ]


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """The least and greatest value to draw: an almost constant series is drawn as a flat line."""
    low, high = min(values), max(values)
    narrow = _NARROWEST * max(abs(low), abs(high)) - (high - low)
    return (low - narrow / 2, high + narrow / 2) if narrow > 0 else (low, high)


def _spark(plot: dict[str, Any]) -> str:
    points = _finite(plot)[-72:]
    if not points:
        return "no finite value"
    values = [y for _, y in points]
    low, high = _scale(values)
    bars = "▁▂▃▄▅▆▇█"
    span = (high - low) or 1.0
    line = "".join(bars[int((y - low) / span * (len(bars) - 1))] for y in values)
    span_of_x = f"{plot['axis']} {points[0][0]} to {points[-1][0]}"
    return f"{line}   {min(values):.4g} to {max(values):.4g}, {span_of_x}"


def html(report: Report) -> str:
    """The report as one HTML page that loads nothing."""
    return page(f"Run {report['run_id']}", section(report))


def page(title: str, body: str) -> str:
    """A complete HTML page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title>"
        '<meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'\">"
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def section(report: Report) -> str:
    """The report as the body of a page."""
    parts = [
        f"<h1>Run {escape(report['run_id'])}</h1>",
        f'<p class="verdict {escape(report["verdict"])}">{escape(report["summary"])}</p>',
        "<table>",
        *(
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in headline(report)
        ),
        "</table>",
    ]
    if report["before"]:
        parts.append("<h2>Before</h2>")
        parts.append(table(["update", "what moved", "value", "usual", "times"], _moved(report)))
    if report["followed"]:
        items = "".join(f"<li>{escape(text)}</li>" for text in _followed(report))
        parts.append(f"<h2>What followed</h2><ul>{items}</ul>")
    for item in report["evidence"]:
        parts.append(f"<h2>{escape(item['title'])}</h2>")
        if item["kind"] == "table":
            parts.append(table(item["columns"], item["rows"]))
        else:
            parts.append(svg(item))
    rows = [[each["time"], each["what"]] for each in report["timeline"]]
    parts.append("<h2>Timeline</h2>" + table(["time", "what"], rows))
    for title, name in (("What to try", "try"), ("What is not known", "unknown")):
        if report[name]:
            items = "".join(f"<li>{escape(text)}</li>" for text in report[name])
            parts.append(f"<h2>{title}</h2><ol>{items}</ol>")
    if report["runbook"]:
        parts.append(f"<p>Runbook: <code>{escape(report['runbook'])}</code></p>")
    return "\n".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_shown(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def svg(plot: dict[str, Any]) -> str:
    """A line over update numbers; a non-finite value is a cross at the top."""
    points = _finite(plot)
    broken = [
        x for x, y in zip(plot["x"], plot["y"], strict=True) if not isinstance(y, int | float)
    ]
    if not points:
        return "<p>No finite value.</p>"
    xs = [x for x, _ in points] + broken
    ys = [y for _, y in points]
    low, high = _scale(ys)
    log = low > 0 and high / low > 100
    left, right = min(xs), max(xs)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / ((right - left) or 1) * (_WIDTH - 2 * _PAD) + _PAD
        if log:
            share = (math.log(y) - math.log(low)) / ((math.log(high) - math.log(low)) or 1)
        else:
            share = (y - low) / ((high - low) or 1)
        return across, _HEIGHT - 22 - share * (_HEIGHT - 44)

    line = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(plot["title"])}">',
        f'<polyline points="{line}" fill="none" stroke="#1971c2" stroke-width="1.5"/>',
        f'<text x="2" y="14" fill="currentColor">{high:.3g}{" (log)" if log else ""}</text>',
        f'<text x="2" y="{_HEIGHT - 22}" fill="currentColor">{low:.3g}</text>',
        f'<text x="{_PAD}" y="{_HEIGHT - 6}" fill="currentColor">{plot["axis"]} {left:g}</text>',
        f'<text x="{_WIDTH - _PAD}" y="{_HEIGHT - 6}" fill="currentColor" text-anchor="end">'
        f"{right:g}</text>",
    ]
    for x in broken:
        at = place(x, high)[0]
        parts.append(f'<text x="{at:.1f}" y="14" fill="#c92a2a" text-anchor="middle">✕</text>')
    mark = plot.get("mark")
    if mark is not None and left <= mark <= right:
        at = place(mark, low)[0]
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="18" y2="{_HEIGHT - 20}" stroke="#c92a2a"'
            ' stroke-dasharray="3 3"/>'
        )
    return "".join(parts) + "</svg>"
