"""The arguments of ``esper-exporter doctor``."""

from __future__ import annotations

import argparse

from esper_exporter.commands.values import port


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    doctor = commands.add_parser(
        "doctor",
        help="check what this machine needs to monitor a run",
        description="Check Python, torch, the GPU driver, the port, the state and share folders,"
        " whether Prometheus answers, scrapes the run and has the rules, and whether its"
        " Alertmanager has receivers with an address. Print a sentence for each, with a remedy for"
        " each problem, and what was not checked. The environment's ESPER_EXPORTER_… settings"
        " count.",
        epilog="Exit codes: 0 no problem, 1 there is a problem, 2 wrong usage.",
    )
    doctor.add_argument(
        "--prometheus",
        metavar="URL",
        default="http://127.0.0.1:9090",
        help="the Prometheus server to check, off for none (default: %(default)s)",
    )
    doctor.add_argument(
        "--target",
        metavar="HOST:PORT",
        help="the running exporter that it should scrape; skips the check for a free port",
    )
    doctor.add_argument("--port", type=port, metavar="P", help="port to check (default: 9108)")
    doctor.add_argument("--host", help="address to check (default: 127.0.0.1)")
    doctor.add_argument("--json", action="store_true", help="print a JSON array instead")

    def run(options: argparse.Namespace) -> int:
        if options.prometheus != "off" and not options.prometheus.startswith(
            ("http://", "https://")
        ):
            doctor.error(
                f"--prometheus {options.prometheus}: a URL begins with http:// or https://"
            )
        from esper_exporter.doctor.examination import run

        return run(options)

    doctor.set_defaults(run=run)
