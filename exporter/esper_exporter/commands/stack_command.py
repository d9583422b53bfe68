"""The arguments of ``esper-exporter stack``."""

from __future__ import annotations

import argparse

from esper_exporter.commands.values import port, seconds

PORTS = {"prometheus": 9090, "alertmanager": 9093, "grafana": 3000}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    stack = commands.add_parser(
        "stack",
        help="run this machine's Prometheus, Alertmanager and Grafana, without Docker",
        description="Run the Prometheus, Alertmanager and Grafana that are installed or unpacked on"
        " this machine, on the loopback, with the rules, routes, data sources and dashboards of"
        " this package, in the foreground. One Ctrl-C ends all of them.",
        epilog="For a missing server, the command prints where to get it; only Prometheus is"
        " required. Exit codes: 0 ended by Ctrl-C or SIGTERM, 1 it could not start or a server"
        " ended, 2 wrong usage.",
    )
    stack.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="HOST:PORT",
        type=_target,
        help="an exporter to scrape; repeatable (default: 127.0.0.1:9108)",
    )
    stack.add_argument(
        "--targets-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="a directory of target files, as in Exporter(file_sd=DIR)",
    )
    stack.add_argument(
        "--interval",
        type=seconds,
        default=15.0,
        metavar="S",
        help="seconds between scrapes, and between evaluations of the rules (default: 15)",
    )
    for name, number in PORTS.items():
        stack.add_argument(
            f"--{name}",
            metavar="PATH",
            help=f"its program, or the folder it was unpacked to (default: {name} on PATH)",
        )
        stack.add_argument(
            f"--{name}-port",
            type=port,
            default=number,
            metavar="P",
            help=f"port on 127.0.0.1; another one if it is taken (default: {number})",
        )
    stack.add_argument(
        "--alertmanager-config",
        metavar="FILE",
        help="your routes and receivers instead of the shipped ones, which send nothing",
    )
    stack.add_argument(
        "--data", metavar="DIR", help="keep the servers' data in DIR (default: deleted at the end)"
    )
    stack.add_argument("--with-parent", action="store_true", help=argparse.SUPPRESS)

    def run(options: argparse.Namespace) -> int:
        from esper_exporter.stack.foreground import run

        return run(options)

    stack.set_defaults(run=run)


def _target(text: str) -> str:
    host, colon, number = text.rpartition(":")
    if not colon or not host or not number.isdigit() or not 0 < int(number) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address; write HOST:PORT")
    return text
