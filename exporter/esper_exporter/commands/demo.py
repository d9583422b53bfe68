"""The arguments of ``esper-exporter demo``."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from esper_exporter.commands.console import CommandError
from esper_exporter.commands.values import port, whole_number
from esper_exporter.demo.injection import FORM, KINDS, Fault, fault

_NEEDED = {"torch": "torch", "sklearn": "scikit-learn"}
"""Modules and the packages that bring them."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    demo = commands.add_parser(
        "demo",
        help="train a small policy for real and serve its page",
        description="Train a recurrent policy of eight heads that grows and prunes small networks"
        " on scikit-learn's handwritten digits, on the CPU, and serve its page meanwhile.",
        epilog="Exit codes: 0 done or ended by Ctrl-C, 1 it could not begin, 2 wrong usage,"
        " 3 the training failed.",
    )
    demo.add_argument(
        "--seed", type=whole_number, default=1, metavar="N", help="of all chance (default: 1)"
    )
    for name, usual, what in (
        ("envs", 4, "environments side by side"),
        ("slots", 3, "places for seeds in each network"),
        ("epochs", 24, "epochs of an episode, each one decision"),
    ):
        demo.add_argument(
            f"--{name}", type=_at_least_one, default=usual, metavar="N", help=f"{what} ({usual})"
        )
    demo.add_argument(
        "--updates", type=_at_least_one, metavar="N", help="end after N (default: with Ctrl-C)"
    )
    demo.add_argument(
        "--port", type=port, metavar="P", help="port to serve on, 0 for any free (default: 9108)"
    )
    demo.add_argument(
        "--allowed-host",
        metavar="NAME",
        action="append",
        help="answer requests for this host name too, as often as wanted; .example.org for all"
        " names below it (default: localhost, the address served on, this machine's name)",
    )
    demo.add_argument(
        "--telemetry-file", metavar="FILE", help="write all events there, one JSON object a line"
    )
    demo.add_argument(
        "--inject",
        type=_fault,
        action="append",
        default=[],
        metavar=FORM,
        help="put a fault into an update (10 unless said), as often as wanted;"
        f" kinds: {', '.join(KINDS)}; :full is for all minibatches of the update",
    )
    demo.add_argument(
        "--dual-emit", action="store_true", help="emit events under their old names as well"
    )
    demo.add_argument("--compile", action="store_true", help="compile the policy")
    demo.add_argument("--amp", action="store_true", help="bfloat16, with a loss scale")
    demo.add_argument(
        "--fake-gpus",
        type=whole_number,
        default=0,
        metavar="N",
        help="so many made-up GPUs on the page, which says that they are",
    )
    demo.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if missing := [package for name, package in _NEEDED.items() if not find_spec(name)]:
        raise CommandError(
            f"the demo trains with {' and '.join(missing)}: pip install {' '.join(missing)};"
            " `esper-exporter replay --recording run1` shows a recorded training without"
        )
    from esper_exporter.demo.command import run

    return run(options)


def _at_least_one(text: str) -> int:
    number = whole_number(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _fault(text: str) -> Fault:
    try:
        return fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
