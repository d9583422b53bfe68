"""The arguments of ``esper-exporter demo``."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from esper_exporter.commands.console import CommandError
from esper_exporter.commands.values import port, whole_number
from esper_exporter.demo.injection import FORM, KINDS, Fault, fault

_NEEDED = {"torch": "torch", "sklearn": "scikit-learn"}
"""Modules and the packages that contain them."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    demo = commands.add_parser(
        "demo",
        help="train a small policy and serve its page",
        description="Train a recurrent policy of eight heads that grows and prunes small networks"
        " on scikit-learn's handwritten digits, on the CPU, and serve its page meanwhile.",
        epilog="Exit codes: 0 done or ended by Ctrl-C, 1 it could not start, 2 wrong usage,"
        " 3 the training failed.",
    )
    demo.add_argument(
        "--seed", type=whole_number, default=1, metavar="N", help="random seed (default: 1)"
    )
    for name, usual, what in (
        ("envs", 4, "parallel environments"),
        ("slots", 3, "places for seeds in each network"),
        ("epochs", 24, "epochs per episode, one decision each"),
    ):
        demo.add_argument(
            f"--{name}", type=_at_least_one, default=usual, metavar="N", help=f"{what} ({usual})"
        )
    demo.add_argument(
        "--updates",
        type=_at_least_one,
        metavar="N",
        help="end after N updates (default: at Ctrl-C)",
    )
    demo.add_argument(
        "--port", type=port, metavar="P", help="port to serve on, 0 for any free (default: 9108)"
    )
    demo.add_argument(
        "--allowed-host",
        metavar="NAME",
        action="append",
        help="also answer requests for this host name; .example.org for all names below it;"
        " repeatable (default: localhost, the listening address, this machine's name)",
    )
    demo.add_argument(
        "--telemetry-file",
        metavar="FILE",
        help="write all events to FILE, one JSON object per line",
    )
    demo.add_argument(
        "--inject",
        type=_fault,
        action="append",
        default=[],
        metavar=FORM,
        help="inject a fault into an update (default: 10); repeatable;"
        f" kinds: {', '.join(KINDS)}; :full hits all minibatches of the update",
    )
    demo.add_argument(
        "--dual-emit", action="store_true", help="also emit events under their old names"
    )
    demo.add_argument("--compile", action="store_true", help="compile the policy")
    demo.add_argument("--amp", action="store_true", help="bfloat16, with a loss scale")
    demo.add_argument(
        "--fake-gpus",
        type=whole_number,
        default=0,
        metavar="N",
        help="show N simulated GPUs on the page, labelled as such",
    )
    demo.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if missing := [package for name, package in _NEEDED.items() if not find_spec(name)]:
        raise CommandError(
            f"the demo trains with {' and '.join(missing)}: pip install {' '.join(missing)};"
            " `esper-exporter replay --recording run1` shows a recorded training without them"
        )
    from esper_exporter.demo.run_demo import run

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
