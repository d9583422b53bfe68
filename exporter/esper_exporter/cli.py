"""The command line ``esper-exporter``: arguments, exit codes, and which command they start."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from esper_exporter import __version__
from esper_exporter.demo.bundled import RECORDINGS
from esper_exporter.terminal import FAILED, INTERRUPTED, OK, PROGRAM, CommandError, write_out


def _whole_number(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative")
    return number


def _port(text: str) -> int:
    number = _whole_number(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port; ports end at 65535")
    return number


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(speed) or speed < 0:
        raise argparse.ArgumentTypeError(f"{text} is no speed; 1 is recorded time, 0 full speed")
    return speed


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Prometheus exporter for esper's training runs, from recorded events.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_replay(commands)
    catalog = commands.add_parser(
        "catalog",
        help="every metric there is, with its labels, unit and source",
        description="List every metric there is, and every field that is not exported with its"
        " reason.",
    )
    catalog.add_argument(
        "--format",
        choices=("table", "json", "markdown"),
        default="table",
        help="table for reading (default), json for programs, markdown as in docs/METRICS.md",
    )
    commands.add_parser("version", help="print the version", description="Print the version.")
    return parser


def _add_replay(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bundled = "; ".join(f"{name}: {what}" for name, what in RECORDINGS.items())
    replay = commands.add_parser(
        "replay",
        help="serve recorded or growing telemetry as a scraped page",
        description="Feed recorded events to an exporter and serve its page, while they are"
        " replayed and after, until Ctrl-C.",
        epilog="Exit codes: 0 done, 1 something could not be read or served (what could be was),"
        " 2 wrong usage, 130 interrupted before --once was done.",
    )
    replay.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="telemetry, one JSON object a line, gzip or not; - is standard input",
    )
    replay.add_argument(
        "--recording", choices=tuple(RECORDINGS), help=f"a recording that is built in ({bundled})"
    )
    replay.add_argument(
        "--speed",
        type=_speed,
        metavar="X",
        help="X times recorded time; 0 is as fast as possible"
        " (default: 1; 0 with --once and --follow)",
    )
    replay.add_argument(
        "--until",
        type=_whole_number,
        metavar="N",
        help="stop after line N, counted over all files, bad lines included",
    )
    replay.add_argument(
        "--follow",
        action="store_true",
        help="go on reading the last FILE as it grows, like tail -F",
    )
    replay.add_argument(
        "--once", action="store_true", help="print the final page instead of serving"
    )
    replay.add_argument(
        "--format",
        choices=("text", "openmetrics"),
        help="of the page that --once prints (default: text)",
    )
    replay.add_argument("--host", help="address to serve on (default: 127.0.0.1)")
    replay.add_argument(
        "--port", type=_port, metavar="P", help="port to serve on, 0 for any free (default: 9108)"
    )
    replay.add_argument(
        "--web-config", metavar="FILE", help="TLS and passwords, as Prometheus' exporters take them"
    )
    replay.add_argument(
        "--run-id", metavar="ID", help="name of the run (default: from its first event)"
    )


def _check_replay(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a usage error where options contradict each other."""
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


def _print_catalog(form: str) -> None:
    from esper_exporter.metrics.catalogue import as_json, as_markdown, as_table, catalogue

    render = {"table": as_table, "json": as_json, "markdown": as_markdown}[form]
    write_out(render(catalogue()).rstrip("\n").encode() + b"\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse's own errors exit with 2."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        if options.command == "replay":
            _check_replay(parser, options)
            from esper_exporter.replay.command import run

            return run(options)
        if options.command == "catalog":
            _print_catalog(options.format)
        else:
            write_out(f"{PROGRAM} {__version__}\n".encode())
    except CommandError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return OK
