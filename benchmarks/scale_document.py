"""The tables of docs/SCALE.md: measured beside reckoned, and what 100,000 runs would cost.

    python -m benchmarks.scale_document [--from FILE] [--write]

Reads ``scale_measured.json``, which ``python -m benchmarks.fleet --json`` writes, and prints both
tables. ``--from`` takes another file in its place; ``--write`` puts the tables into docs/SCALE.md.
Exits with 1, and writes nothing, if a law is off by more than a fifth.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scale_model import (
    ALLOWED,
    LAWS,
    MEASURED,
    Measurements,
    Model,
    differences,
    laws_of,
    model_of,
    predict,
    read,
)

DOCUMENT = Path(__file__).parents[1] / "docs" / "SCALE.md"
BEGIN, END = "<!-- scale model -->\n", "<!-- end of scale model -->\n"
RULES_EVERY = 15.0
DURATIONS = (
    ("rules_seconds", "all rules take, once, s"),
    ("query_seconds", "the longest query of the fleet board, s"),
)
"""Measured, without a law: they depend on what else the machine does."""
AROUND = (
    ("other_cores", "cores that everything else used meanwhile"),
    ("evaluated", "how often the rules were evaluated in 15 s"),
)


def number(value: float) -> str:
    """A number with three digits that count."""
    if value >= 1000:
        digits = 3 - len(str(int(value)))
        return f"{int(round(value, digits)):,}"
    return f"{value:.3g}"


def beside(measured: Measurements) -> list[str]:
    """The table of what was measured and what the laws say."""
    sizes = measured.sizes
    model, off = model_of(sizes), differences(sizes)
    heads = [f"{int(size['targets']):,} runs{', slim' * bool(size['slim'])}" for size in sizes]
    lines = [f"| | law | {' | '.join(heads)} |", "|---" * (len(sizes) + 2) + "|"]
    pages = [f"{size['page_series']:,.0f} every {size['interval']:g} s" for size in sizes]
    lines.append(f"| series a page | | {' | '.join(pages)} |")
    for law in laws_of(sizes):
        cells = [
            f"{number(size[law.name] / law.scale)}, law"
            f" {number(predict(law, model.coefficients[law.name], size) / law.scale)}"
            f" ({off[law.name, size['targets'], size['slim']]:+.0%})"
            if law.holds_for(size)
            else number(size[law.name] / law.scale)
            for size in sizes
        ]
        lines.append(f"| {law.unit} | {law.words} | {' | '.join(cells)} |")
    for name, words in DURATIONS if measured.quiet else ():
        lines.append(f"| {words} | | {' | '.join(number(size[name]) for size in sizes)} |")
    for name, words in AROUND:
        if all(name in size for size in sizes):
            lines.append(f"| {words} | | {' | '.join(f'{size[name]:.2f}' for size in sizes)} |")
    return lines


def coefficients(model: Model) -> list[str]:
    """The table of coefficients."""
    lines = ["| | a | b | c |", "|---|---|---|---|"]
    for law in LAWS:
        if law.name not in model.coefficients:
            continue
        cells = [f"{value:.3g}" for value in model.coefficients[law.name]]
        cells += [""] * (3 - len(cells))
        lines.append(f"| {law.name} | {' | '.join(cells)} |")
    return lines


@dataclass(frozen=True)
class Plan:
    """A fleet of 100,000 runs, and what it is paid with: prices are assumptions to replace."""

    runs: int = 100_000
    page_series: float = 3_400.0
    """A run of 6 envs × 6 slots, with what its exporter adds."""
    runs_a_server: int = 1_000
    replicas: int = 2
    days: float = 30.0
    rules_seconds_of_a_day: float = 0.0082
    """What a day of samples adds to an evaluation of a run's rules: 82,000 samples more to read
    (`benchmarks.rule_cost`) at 0.1 µs."""
    dollars_a_gigabyte: float = 3.0
    """Of memory, a month."""
    dollars_a_core: float = 20.0
    dollars_a_disk_gigabyte: float = 0.08


def cost(model: Model, plan: Plan, bytes_a_sample: float) -> list[str]:
    """The table of what the plan costs, with full chunks: the law is for those hardly begun."""
    servers = math.ceil(plan.runs / plan.runs_a_server)
    one = model.of(plan.runs_a_server, plan.page_series)
    of_a_day = plan.rules_seconds_of_a_day * plan.runs_a_server
    rules = model.coefficients["cores"][2] * RULES_EVERY * plan.runs_a_server + of_a_day
    cores = one["cores"] + of_a_day / RULES_EVERY
    disk = one["samples_per_second"] * 86_400 * plan.days * bytes_a_sample
    network = plan.runs_a_server * one["page_bytes"] / 15.0
    all_servers = servers * plan.replicas
    month = all_servers * (
        plan.dollars_a_gigabyte * one["memory_bytes"] * 2 / 1e9
        + plan.dollars_a_core * cores * 2
        + plan.dollars_a_disk_gigabyte * disk / 1e9
    )
    rows = [
        ("runs", number(plan.runs_a_server), number(plan.runs)),
        ("servers, with replicas", str(plan.replicas), number(all_servers)),
        ("series", number(one["series"]), number(one["series"] * servers)),
        (
            "samples a second",
            number(one["samples_per_second"]),
            number(one["samples_per_second"] * servers),
        ),
        (
            "memory, GB (resident; have twice)",
            number(one["memory_bytes"] / 1e9),
            number(one["memory_bytes"] * all_servers / 1e9),
        ),
        ("CPU, cores (have twice)", number(cores), number(cores * all_servers)),
        ("CPU seconds that all rules take, once", number(rules), ""),
        (
            f"disk for {plan.days:g} days, TB",
            number(disk / 1e12),
            number(disk * all_servers / 1e12),
        ),
        ("scraped, MB a second", number(network / 1e6), number(network * all_servers / 1e6)),
        ("dollars a month", number(month / all_servers * plan.replicas), number(month)),
    ]
    lines = ["| | one server | all |", "|---|---|---|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def document(measured: Measurements) -> str:
    """What stands in docs/SCALE.md."""
    model = model_of(measured.sizes)
    worst = max(abs(each) for each in differences(measured.sizes).values())
    dense = measured.dense
    full = (
        number(dense["index_bytes"] / dense["series"]),
        number(dense["samples"] / dense["series"]),
    )
    durations = "" if measured.quiet else "; the machine did other work, so no durations are shown"
    untried = [n for n in (1000, 5000) if n > max(size["targets"] for size in measured.sizes)]
    if untried:
        durations += f"; {' and '.join(f'{n:,}' for n in untried)} runs were not measured"
    parts = [
        f"Measured {measured.when}; no law is off by more than {worst:.0%} at any size{durations}.",
        "\n".join(beside(measured)),
        f"With full chunks, {number(measured.bytes_a_sample)} bytes of a block a sample, and"
        f" {full[0]} of index a series: {dense['targets']:g} runs scraped every second,"
        f" {full[1]} samples a series.",
        "\n".join(coefficients(model)),
        "With these laws, 100,000 runs of 6 envs × 6 slots:",
        "\n".join(cost(model, Plan(), measured.bytes_a_sample)),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.scale_document",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", dest="path", type=Path, default=MEASURED, metavar="FILE")
    parser.add_argument("--write", action="store_true", help="into docs/SCALE.md")
    options = parser.parse_args()
    measured = read(options.path)
    text = document(measured)
    print(text)
    off = differences(measured.sizes)
    wrong = {key: each for key, each in off.items() if abs(each) > ALLOWED}
    for (name, targets, is_slim), each in wrong.items():
        print(f"off by {each:+.0%}: {name} of {targets:g} runs{', slim' * bool(is_slim)}")
    if options.write and not wrong:
        if options.path != MEASURED:
            MEASURED.write_text(options.path.read_text())
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        DOCUMENT.write_text(before + BEGIN + text + END + rest.partition(END)[2])
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
