"""Generate the shells' completion scripts from the command line's parser, with shtab."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab

from esper_exporter.cli import build_parser
from esper_exporter.commands import completion_command

FOLDER = Path(completion_command.__file__).parent / "completions"
PATHS = {"FILE": shtab.FILE, "OUT": shtab.FILE, "PATH": shtab.FILE, "DIR": shtab.DIRECTORY}
"""What is completed for an argument by its metavar."""


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


def generated() -> dict[Path, str]:
    """The content of each generated file."""
    parser = build_parser()
    for one in parsers(parser):
        for action in one._actions:
            if isinstance(action.metavar, str) and action.metavar in PATHS:
                action.complete = PATHS[action.metavar]  # type: ignore[attr-defined]
    return {
        FOLDER / f"esper-exporter.{shell}": shtab.complete(parser, shell).rstrip() + "\n"
        for shell in completion_command.SHELLS
    }


def main() -> int:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for path, content in generated().items():
        path.write_text(content)
    print("· completions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
