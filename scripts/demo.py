"""What `make demo` starts: a training or a recording, with the stack of this machine beside it.

usage: demo.py demo|replay [ARGUMENT...], those of `esper-exporter`; Ctrl-C ends everything
       demo.py --check demo|replay [ARGUMENT...] only says whether the arguments are good
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esper_exporter.cli import build_parser, main
from esper_exporter.commands.console import FAILED, OK

MAKE = {"demo": "make demo ARGS=…", "replay": "make demo-replay ARGS=…"}
SCRAPE_SECONDS = 2
TARGETS = "ESPER_EXPORTER_FILE_SD"
STACK_ENDS_SECONDS = 30


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """The options of the command; exits with 2 and the usage of `make demo` when they are wrong."""
    parser = build_parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                command.prog = MAKE.get(name, command.prog)
    options = parser.parse_args(arguments)
    if check := getattr(options, "check", None):
        check(options)
    return options


def say(text: str) -> None:
    """A line for the user."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def stack() -> Iterator[subprocess.Popen[bytes] | None]:
    """`esper-exporter stack`, which finds the exporter by its target file; None without Prometheus.

    It is a separate process that ends when its standard input does: however this process ends,
    the servers end too, and their folders go.
    """
    if shutil.which("prometheus") is None:
        say(
            "Prometheus    missing; with it there are graphs and alerts: apt-get install prometheus"
        )
        yield None
        return
    folder = Path(tempfile.gettempdir()) / f"esper-demo-{secrets.token_hex(4)}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "esper_exporter", "stack", "--with-parent"),
            *("--targets-dir", str(folder), "--interval", str(SCRAPE_SECONDS)),
        ],
        stdin=subprocess.PIPE,
        # A separate session: Ctrl-C is for the training, whose end it is still to see.
        start_new_session=True,
    )
    before = os.environ.get(TARGETS)
    os.environ[TARGETS] = str(folder)
    try:
        yield process
    finally:
        if before is None:
            del os.environ[TARGETS]
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STACK_ENDS_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(arguments: list[str]) -> int:
    """Show the command until it ends or Ctrl-C comes."""
    options = read_arguments(arguments)
    if getattr(options, "once", False) or os.environ.get(TARGETS):
        return main(arguments)
    with stack() as servers:
        code = main(arguments)
        if servers is not None and servers.poll() is None and code not in (OK, FAILED):
            say("The alerts stay until Ctrl-C.")
            signal.pause()
        return code


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        read_arguments(sys.argv[2:])
        sys.exit(0)
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(0)
