"""The command ``esper-exporter backfill``: convert recordings to samples with timestamps."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from esper_exporter.commands.console import FAILED, INTERRUPTED, OK, CommandError
from esper_exporter.demo.bundled import files_of
from esper_exporter.exporter import Exporter
from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.replay.lines import STANDARD_INPUT
from esper_exporter.replay.run_replay import check_readable, shown, unusable
from esper_exporter.replay.session import Outcome, Plan, replay
from esper_exporter.replay.stop import Stop, stop_on_signals
from esper_exporter.replay.timestamped_samples import History, RunTwice
from esper_exporter.settings import OFF


def run(options: argparse.Namespace) -> int:
    """Run the command with checked options; return the exit code. Raises CommandError."""
    with files_of(options.files) as files:
        options.files = files
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    check_readable(options.files)
    taken = {name for metric in catalogue().metrics for name in metric.labels} | {"le"}
    if clash := sorted(taken & dict(options.label).keys()):
        raise CommandError(f"--label {clash[0]}: the samples already have this label")
    out = Path(options.out)
    _check_writable(out, options.files)
    beside = out.with_name(f".{out.name}.{os.getpid()}.new")
    with stop_on_signals() as stop:
        try:
            code = _write(options, beside, stop)
            if code != INTERRUPTED:
                beside.replace(out)
        except OSError as error:
            raise CommandError(f"{out}: {error.strerror}") from error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
    return code


def _write(options: argparse.Namespace, path: Path, stop: Stop) -> int:
    def make(clock: Callable[[], datetime]) -> Exporter:
        try:
            return Exporter(
                run_id=options.run_id,
                state_dir=OFF,
                watch_process=False,
                gpu_vitals=OFF,
                host_vitals=OFF,
                linger=0.0,
                clock=clock,
            )
        except ValueError as error:
            raise CommandError(str(error)) from error

    plan = Plan(options.files, speed=0.0)
    with path.open("wb") as out, shown(plan) as progress:
        history = History(make, options.step, out.write, dict(options.label))
        try:
            outcome = replay(plan, history.feed, stop, progress)
            if outcome.stopped:
                return INTERRUPTED
            history.finish()
        except RunTwice as again:
            raise CommandError(
                f"run {again} appears twice; name its files in order of time, each once"
            ) from None
        refused = history.refused
        progress.close()
        if not history.samples:
            raise CommandError(
                f"{', '.join(options.files)}: {unusable(outcome)}; {options.out} is not written"
            )
        progress.say(_summary(outcome, history, refused, options.out))
    return FAILED if outcome.damaged or refused or history.odd_times else OK


def _check_writable(out: Path, files: list[str]) -> None:
    """Check that the output can be written, before an hour of work. Raises CommandError."""
    folder = out.parent
    if out.is_dir():
        raise CommandError(f"--out {out}: is a directory; name a file in it")
    if not folder.is_dir():
        raise CommandError(f"--out {out}: the directory {folder} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"--out {out}: no write permission for the directory {folder}")
    for name in files:
        if name != STANDARD_INPUT and out.exists() and out.samefile(name):
            raise CommandError(f"--out {out}: is one of the recordings")


def _summary(outcome: Outcome, history: History, refused: int, out: str) -> str:
    parts = [f"{history.samples:,} samples from {outcome.lines:,} lines in {out}"]
    if refused:
        parts.append(f"{refused:,} lines were unusable")
    if history.odd_times:
        parts.append(f"{history.odd_times:,} lines with a time out of order")
    return "; ".join(parts)
