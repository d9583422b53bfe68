"""The command ``esper-exporter doctor``: run the checks and print their findings."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from esper_exporter.commands.console import FAILED, OK, CommandError, write_out
from esper_exporter.doctor.check_result import GOOD, NOTE, PROBLEM, Finding
from esper_exporter.doctor.machine_checks import (
    check_driver,
    check_folders,
    check_port,
    check_python,
    check_torch,
)
from esper_exporter.doctor.prometheus_checks import check_prometheus
from esper_exporter.settings import read_settings

MARKS = {GOOD: "ok", NOTE: "note", PROBLEM: "PROBLEM"}
COLOURS = {GOOD: "32", NOTE: "33", PROBLEM: "31"}


def run(options: argparse.Namespace) -> int:
    """Print a line for each finding; FAILED when there is a problem. Raises CommandError."""
    try:
        settings = read_settings({"port": options.port, "host": options.host})
    except ValueError as error:
        raise CommandError(str(error)) from error
    found = []

    def checks() -> Iterator[Finding]:
        yield check_python()
        yield check_torch()
        yield check_driver()
        if options.target is None:
            yield check_port(settings)
        yield from check_folders(settings)
        if not _off(options):
            yield from check_prometheus(options.prometheus, options.target)

    for finding in checks():
        found.append(finding)
        if not options.json:
            write_out(_line(finding).encode())
    problems = sum(one.level == PROBLEM for one in found)
    if options.json:
        write_out(json.dumps([asdict(one) for one in found], indent=2).encode() + b"\n")
    else:
        notes = sum(one.level == NOTE for one in found)
        write_out((_not_checked(options) + _total(problems, notes) + "\n").encode())
    return FAILED if problems else OK


def _line(finding: Finding) -> str:
    mark = f"{MARKS[finding.level]:8}"
    if sys.stdout.isatty():
        mark = f"\x1b[{COLOURS[finding.level]}m{mark}\x1b[0m"
    line = f"{mark}{finding.subject}: {finding.sentence}\n"
    return line + (f"{'':8}→ {finding.remedy}\n" if finding.remedy else "")


def _not_checked(options: argparse.Namespace) -> str:
    """What the chosen options left out, and what no check on this machine can find out."""
    left_out = [
        *(["the port, because --target names a running exporter"] if options.target else []),
        *(["Prometheus, rules and Alertmanager, because of --prometheus off"] * _off(options)),
        *(["a run's own page: name it with --target HOST:PORT"] if not options.target else []),
        "whether a notification arrives: send one with `amtool alert add`",
    ]
    return f"not checked: {'; '.join(left_out)}\n"


def _off(options: argparse.Namespace) -> bool:
    return bool(options.prometheus == "off")


def _total(problems: int, notes: int) -> str:
    found = f"{problems} problem{'s' * (problems != 1)}" if problems else "no problems"
    return f"{found}, {notes} note{'s' * (notes != 1)}" if notes else found
