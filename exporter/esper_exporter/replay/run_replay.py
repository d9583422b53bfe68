"""The command ``esper-exporter replay``: replay into an exporter, and show the progress."""

from __future__ import annotations

import argparse
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from esper_exporter.commands.console import (
    FAILED,
    INTERRUPTED,
    OK,
    PROGRAM,
    CommandError,
    write_out,
)
from esper_exporter.commands.serving import start
from esper_exporter.demo.bundled import files_of, recording
from esper_exporter.exporter import Exporter
from esper_exporter.journal.sources import is_journal
from esper_exporter.replay.lines import STANDARD_INPUT
from esper_exporter.replay.pace import feed_into
from esper_exporter.replay.player import Player, playable
from esper_exporter.replay.progress import Progress, progress_for
from esper_exporter.replay.session import Outcome, Plan, replay
from esper_exporter.replay.stop import Stop, stop_on_signals
from esper_exporter.settings import OFF, PREFIX

_ACCEPT = {"text": None, "openmetrics": "application/openmetrics-text; version=1.0.0"}


def run(options: argparse.Namespace) -> int:
    """Run the command with checked options; return the exit code. Raises CommandError."""
    bundled = recording(options.recording) if options.recording else nullcontext()
    with bundled as path, files_of(options.files) as named, stop_on_signals() as stop:
        files = [str(path)] if path is not None else named
        follow: bool = options.follow
        check_readable(files[:-1] if follow else files)
        speed = options.speed
        if speed is None:
            speed = 0.0 if options.once or follow else 1.0
        plan = Plan(files, speed, options.until, follow)
        if options.once:
            return _print(_exporter(options, options.port), plan, stop, options.format)
        return _serve(options, plan, stop)


def check_readable(files: Sequence[str]) -> None:
    """Check the files before the server starts, not after an hour of replay."""
    for name in files:
        if name == STANDARD_INPUT:
            continue
        try:
            mode = os.stat(name).st_mode
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror}") from error
        if stat.S_ISDIR(mode) and is_journal(Path(name)):
            continue
        if stat.S_ISDIR(mode):
            raise CommandError(f"{name}: is a directory")
        if not os.access(name, os.R_OK):
            raise CommandError(f"{name}: not readable")


def _exporter(options: argparse.Namespace, port: int | None) -> Exporter:
    # A recording must not read or write the state that a live run keeps for its resumption, and
    # following a live run keeps only what the options name.
    kept = os.environ.get(f"{PREFIX}STATE_DIR") if options.follow else None
    try:
        return Exporter(
            port=port,
            host=options.host,
            run_id=_only_run(options.files) if options.run_id is None else options.run_id,
            web_config=options.web_config,
            allowed_hosts=options.allowed_host,
            strict=True,
            state_dir=kept or OFF,
            # How this process ends says nothing about the run.
            watch_process=False,
            # This machine and this process are not the training's.
            gpu_vitals=OFF,
            host_vitals=OFF,
            # A recording needs no alarm; following a live run does.
            linger=None if options.follow else 0.0,
        )
    except ValueError as error:
        raise CommandError(str(error)) from error


def _only_run(files: Sequence[str]) -> str | None:
    """The run id of a journal with one run: its events do not carry it."""
    if len(files) != 1 or not is_journal(Path(files[0])):
        return None
    from esper_exporter.journal.journal_lines import run_ids

    known = run_ids(Path(files[0]))
    return known[0] if len(known) == 1 else None


def _print(exporter: Exporter, plan: Plan, stop: Stop, form: str | None) -> int:
    with shown(plan) as progress:
        outcome = replay(plan, feed_into(exporter.emit, exporter.emit_line), stop, progress)
    if outcome.stopped:
        return INTERRUPTED
    if plan.until is None:
        exporter.end_recordings()  # else the page shows the middle of the run
    if plan.until != 0 and not exporter.summaries():
        raise CommandError(f"{', '.join(plan.files)}: {unusable(outcome)}")
    write_out(exporter.render(_ACCEPT[form or "text"]))
    return FAILED if outcome.damaged else OK


def _serve(options: argparse.Namespace, plan: Plan, stop: Stop) -> int:
    """Replay into an exporter and serve it until Ctrl-C; ``options.opened`` gets its address."""
    with shown(plan) as progress:
        exporter = start(
            lambda port: _exporter(options, port),
            options.port,
            progress.say,
            elsewhere=not options.follow,
        )
        try:
            progress.say(f"open {exporter.url}; serving {exporter.url}/metrics")
            if options.opened is not None and exporter.url is not None:
                options.opened(exporter.url)

            def at_end(outcome: Outcome) -> None:
                progress.close()
                if plan.until != 0 and not plan.follow and not exporter.summaries():
                    raise CommandError(f"{', '.join(plan.files)}: {unusable(outcome)}")
                progress.say(_summary(outcome, exporter.url))

            if playable(plan):
                player = Player(
                    plan,
                    feed_into(exporter.emit, exporter.emit_line),
                    exporter.forget_runs,
                    exporter.end_recordings,
                    stop,
                    progress,
                )
                exporter.page.replay = player
                outcome = player.play(at_end)
            else:
                outcome = replay(plan, feed_into(exporter.emit, exporter.emit_line), stop, progress)
                if not plan.follow:
                    exporter.end_recordings()
                if not outcome.stopped:
                    at_end(outcome)
                    stop.wait(None)
        finally:
            exporter.close()
    return FAILED if outcome.damaged else OK


def unusable(outcome: Outcome) -> str:
    """Why a replay showed no run: the end of a sentence that begins with its files."""
    if not outcome.lines:
        return "it is empty"
    lines = (
        "its only line is not an event"
        if outcome.lines == 1
        else (f"none of its {outcome.lines:,} lines is an event")
    )
    return f"{lines} that can be used (telemetry is one JSON object a line)"


def _summary(outcome: Outcome, url: str | None) -> str:
    lines = f"{outcome.lines:,} line" + ("" if outcome.lines == 1 else "s")
    return f"replayed {lines}; still serving {url}/metrics, Ctrl-C ends"


@contextmanager
def shown(plan: Plan) -> Iterator[Progress]:
    """A progress display that also shows logged warnings."""
    progress = progress_for(plan.files, plan.follow)
    handler = _ProgressHandler(progress)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield progress
    finally:
        root.removeHandler(handler)
        progress.close()


class _ProgressHandler(logging.Handler):
    """Prints log records as lines of the command."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.say(f"{PROGRAM}: {record.levelname.lower()}: {self.format(record)}")
