"""The command ``esper-exporter completion``: what makes a shell complete the command line."""

from __future__ import annotations

import argparse
from importlib.resources import files

from esper_exporter.commands.console import OK, write_out

SHELLS = ("bash", "zsh", "fish")

INSTALL = """where it goes:
  bash   esper-exporter completion bash > ~/.local/share/bash-completion/completions/esper-exporter
  zsh    esper-exporter completion zsh > ~/.zfunc/_esper-exporter   (a directory of $fpath)
  fish   esper-exporter completion fish > ~/.config/fish/completions/esper-exporter.fish
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    completion = commands.add_parser(
        "completion",
        help="print the completion script of a shell",
        description="Print the script with which a shell completes commands, options and files.",
        epilog=INSTALL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    write_out(
        files(__package__).joinpath("completions", f"esper-exporter.{options.shell}").read_bytes()
    )
    return OK
