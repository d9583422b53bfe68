"""`make bench`: all measurements, as a table and as JSON. Reports floors that are missed, and
fails on none: a busy machine is no defect."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    agent,
    emit,
    memory,
    page,
    probe,
    publish,
    scrape,
    start,
    stolen,
    viewers,
    vitals,
)
from benchmarks.measure import Result

PARTS = (page, publish, stolen, memory, scrape, emit, agent, viewers, probe, vitals, start)


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "/s":
        return f"{value:,.0f}/s"
    if unit == "bytes":
        return f"{value / 1e6:.1f} MB"
    for scale, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{value / scale:.3g} {name}"
    return f"{value:.3g} s"


def _wanted(result: Result) -> str:
    if result.floor is None:
        return ""
    sign = "≥" if result.more else "≤"
    wanted = (
        f"{result.floor:g}×" if result.ratio is not None else _amount(result.floor, result.unit)
    )
    return f"{sign} {wanted}"


def table(results: list[Result]) -> str:
    """An aligned table, which is also Markdown."""
    rows = [("what", "ours", "prometheus_client", "ratio", "wanted", "met", "how")]
    for result in results:
        rows.append(
            (
                result.name,
                _amount(result.ours, result.unit) if result.ours else "",
                _amount(result.theirs, result.unit),
                "" if result.ratio is None else f"{result.ratio:.3g}×",
                _wanted(result),
                {True: "yes", False: "no", None: ""}[result.met],
                result.note,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (default 9)")
    parser.add_argument("--quick", action="store_true", help="two rounds: does it run?")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    options = parser.parse_args()
    rounds = 2 if options.quick else max(2, options.rounds)
    results: list[Result] = []
    for part in PARTS:
        print(f"· {part.__name__.removeprefix('benchmarks.')}", flush=True)
        results += part.run(rounds)
    print()
    print(table(results))
    if options.json is not None:
        reported = {
            "date": datetime.now(UTC).date().isoformat(),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "results": [{**asdict(result), "met": result.met} for result in results],
        }
        options.json.write_text(json.dumps(reported, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
