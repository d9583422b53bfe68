"""The agent's page for people: every process of the node, its state or how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from esper_exporter import __version__
from esper_exporter.serve.messages import Answer

_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c62828; --good: #2e7d32; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #a5d6a7; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin-bottom: .2rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; }
.bad { color: var(--bad); font-weight: 600; }
.good { color: var(--good); }
.wide { overflow-x: auto; }
"""
_COLUMNS = ("Run", "Rank", "State", "Lit latches", "Page", "Process")


@dataclass(frozen=True, slots=True)
class ProcessLine:
    """One process as the page shows it. ``age`` is that of its newest page, in seconds."""

    run_id: str
    rank: str
    state: str
    failed: bool
    latches: tuple[str, ...]
    age: float | None
    pid: int


def status_page(lines: Iterable[ProcessLine]) -> Answer:
    """The page, one self-contained document that loads nothing and reloads itself."""
    rows = "".join(_row(line) for line in lines)
    table = (
        f"<div class=wide><table><thead><tr>{''.join(f'<th>{name}' for name in _COLUMNS)}"
        f"<tbody>{rows}</table></div>"
        if rows
        else "<p>No process shares its page yet. A training that runs with <code>Exporter()</code>"
        " or under <code>esper-exporter run</code> appears here within a second."
    )
    body = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'><meta http-equiv=refresh content=5>"
        f"<title>esper-exporter agent</title><style>{_STYLE}</style>"
        f"<h1>Training processes of this node</h1>{table}"
        f"<p><a href=/metrics>Metrics</a> · esper-exporter {escape(__version__)}"
    )
    fields = ((b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", _POLICY))
    return Answer(200, body.encode(), fields)


def _row(line: ProcessLine) -> str:
    run = escape(line.run_id) or "(no run yet)"
    latches = escape(", ".join(line.latches))
    age = "none yet" if line.age is None else f"{line.age:.0f} s old"
    kind = "bad" if line.failed else "good"
    return (
        f"<tr><td>{run}<td>{escape(line.rank)}<td class={kind}>{escape(line.state)}"
        f"<td{' class=bad' if latches else ''}>{latches or 'none'}<td>{age}<td>{line.pid}"
    )
