"""The arguments of ``esper-exporter replay``."""

from __future__ import annotations

import argparse

from esper_exporter.commands.values import port, speed, whole_number
from esper_exporter.demo.bundled import RECORDINGS


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    bundled = "; ".join(f"{name}: {what}" for name, what in RECORDINGS.items())
    replay = commands.add_parser(
        "replay",
        help="serve recorded or growing telemetry as a page to scrape",
        description="Feed recorded events to an exporter and serve its page, during the replay"
        " and afterwards, until Ctrl-C.",
        epilog="Exit codes: 0 done, 1 reading or serving something failed (the rest is shown),"
        " 2 wrong usage, 130 interrupted before --once was done.",
    )
    replay.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="telemetry, one JSON object a line, gzip or not; - is standard input; the name of a"
        " built-in recording",
    )
    replay.add_argument(
        "--recording", choices=tuple(RECORDINGS), help=f"a built-in recording ({bundled})"
    )
    replay.add_argument(
        "--speed",
        type=speed,
        metavar="X",
        help="X times recorded time; 0 is as fast as possible"
        " (default: 1; 0 with --once and --follow)",
    )
    replay.add_argument(
        "--until",
        type=whole_number,
        metavar="N",
        help="stop after line N, counted over all files, bad lines included",
    )
    replay.add_argument(
        "--follow", action="store_true", help="keep reading the last FILE as it grows, like tail -F"
    )
    replay.add_argument(
        "--once", action="store_true", help="print the final page instead of serving"
    )
    replay.add_argument(
        "--format",
        choices=("text", "openmetrics"),
        help="format of the page that --once prints (default: text)",
    )
    replay.add_argument("--host", help="address to serve on (default: 127.0.0.1)")
    replay.add_argument(
        "--port", type=port, metavar="P", help="port to serve on, 0 for any free (default: 9108)"
    )
    replay.add_argument(
        "--allowed-host",
        metavar="NAME",
        action="append",
        help="also answer requests for this host name; .example.org for all names below it;"
        " repeatable (default: localhost, the listening address, this machine's name)",
    )
    replay.add_argument(
        "--web-config",
        metavar="FILE",
        help="TLS and passwords, a Prometheus web configuration file",
    )
    replay.add_argument(
        "--run-id", metavar="ID", help="name of the run (default: from its first event)"
    )

    def run(options: argparse.Namespace) -> int:
        _check(replay, options)
        from esper_exporter.replay.run_replay import run

        return run(options)

    replay.set_defaults(run=run, check=lambda options: _check(replay, options), opened=None)


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with a usage error if options contradict each other."""
    files: list[str] = options.files
    if bool(files) == bool(options.recording):
        parser.error(
            "FILE and --recording exclude each other"
            if files
            else "nothing to replay: name a FILE, or --recording " + " or ".join(RECORDINGS)
        )
    if files.count("-") > 1:
        parser.error("standard input can be read only once")
    if options.once:
        for option, value in (
            ("--host", options.host),
            ("--port", options.port),
            ("--allowed-host", options.allowed_host),
            ("--web-config", options.web_config),
        ):
            if value is not None:
                parser.error(f"--once serves nothing: {option} has no meaning with it")
        if options.follow and options.until is None:
            parser.error("--once with --follow never ends: add --until N")
    elif options.format is not None:
        parser.error("--format is for --once; a scraper chooses its format itself")
    if options.follow and (not files or files[-1] == "-"):
        parser.error("--follow needs a file that grows; standard input is read to its end anyway")
