"""The command ``esper-exporter completion``: print a shell's completion script."""

from __future__ import annotations

import argparse
from importlib.resources import files

from esper_exporter.commands.console import OK, write_out

SHELLS = ("bash", "zsh", "fish")

INSTALL = """where to put it:
  bash   esper-exporter completion bash > ~/.local/share/bash-completion/completions/esper-exporter
  zsh    esper-exporter completion zsh > ~/.zfunc/_esper-exporter   (a directory of $fpath)
  fish   esper-exporter completion fish > ~/.config/fish/completions/esper-exporter.fish
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's commands."""
    completion = commands.add_parser(
        "completion",
        help="print the completion script of a shell",
        description="Print the script that makes a shell complete commands, options and files.",
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
