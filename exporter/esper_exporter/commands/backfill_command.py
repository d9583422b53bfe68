"""The arguments of ``esper-exporter backfill``."""

from __future__ import annotations

import argparse

from esper_exporter.commands.values import label, seconds

DEFAULT_STEP = 15.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    backfill = commands.add_parser(
        "backfill",
        help="convert recorded telemetry to samples with timestamps, to import into Prometheus",
        description="Write what a Prometheus would have scraped while the recording was made, as"
        " OpenMetrics with timestamps. 'promtool tsdb create-blocks-from openmetrics OUT DATA'"
        " makes blocks from it.",
        epilog="Exit codes: 0 done, 1 reading, using or writing something failed (the rest is"
        " written), 2 wrong usage, 130 interrupted (no output).",
    )
    backfill.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="telemetry, one JSON object a line, gzip or not, each once; - is standard input; the"
        " name of a built-in recording",
    )
    backfill.add_argument("--out", metavar="OUT", required=True, help="file to write")
    backfill.add_argument(
        "--step",
        type=seconds,
        default=DEFAULT_STEP,
        metavar="S",
        help="seconds of recorded time from sample to sample (default: %(default)g)",
    )
    backfill.add_argument(
        "--run-id", metavar="ID", help="name of the run (default: from its first event)"
    )

    backfill.add_argument(
        "--label",
        type=label,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="label for all samples, as a scrape adds it: job=esper; repeatable",
    )

    def run(options: argparse.Namespace) -> int:
        if options.files.count("-") > 1:
            backfill.error("standard input can be read only once")
        from esper_exporter.replay.backfill import run

        return run(options)

    backfill.set_defaults(run=run)
