"""The landing page: one self-contained HTML document, light and dark, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape

from esper_exporter.serve.interfaces import LandingPage, LandingRun

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Nothing is loaded from anywhere; the style sheet is inline."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c62828; --good: #2e7d32; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #a5d6a7; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
.bad { color: var(--bad); font-weight: 600; }
.good { color: var(--good); }
.wide { overflow-x: auto; }
nav a { margin-right: 1rem; }
"""


def _time(timestamp: float | None) -> str:
    if timestamp is None:
        return "none yet"
    try:
        moment = datetime.fromtimestamp(timestamp, UTC)
    except (OverflowError, ValueError, OSError):
        return "unreadable"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _row(run: LandingRun) -> str:
    latches = (
        f'<span class="bad">{escape(", ".join(run.latches))}</span>'
        if run.latches
        else '<span class="good">none</span>'
    )
    state = (
        f'<span class="bad">{escape(run.state)}</span>' if run.state.startswith("failed") else None
    )
    updates = "not measured" if run.policy_updates is None else str(run.policy_updates)
    cells = (
        escape(run.run_id),
        escape(run.group_id),
        escape(run.task or "unknown"),
        state or escape(run.state),
        latches,
        updates,
        _time(run.last_event_timestamp),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _table(runs: Iterable[LandingRun]) -> str:
    rows = "".join(map(_row, runs))
    if not rows:
        return "<p>No run has started yet.</p>"
    head = "".join(
        f"<th>{title}</th>"
        for title in ("run", "group", "task", "state", "latches", "policy updates", "last event")
    )
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _links(page: LandingPage) -> str:
    links = [
        ("Metrics", page.metrics_path),
        ("Healthy", "/-/healthy"),
        ("Ready", "/-/ready"),
        *page.links,
    ]
    shown = [
        f'<a href="{escape(address)}">{escape(title)}</a>'
        for title, address in links
        if address.startswith(("http://", "https://", "/"))
    ]
    return "<nav>" + "".join(shown) + "</nav>"


def landing_html(page: LandingPage) -> bytes:
    """The document, UTF-8."""
    ready = '<span class="good">ready</span>' if page.ready else "waiting for a run"
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>esper-exporter</title><style>{_STYLE}</style></head><body>"
        f"<h1>esper-exporter {escape(page.version)}</h1>"
        f"<p>Prometheus metrics of an esper training run: {ready}.</p>"
        f"{_links(page)}{_table(page.runs)}</body></html>\n"
    )
    return document.encode("utf-8", "replace")
