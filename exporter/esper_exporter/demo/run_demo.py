"""The command ``esper-exporter demo``: run a training with an exporter, and show the progress."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from esper_exporter import Exporter
from esper_exporter.commands.console import OK, CommandError
from esper_exporter.commands.serving import start
from esper_exporter.demo.display import Display
from esper_exporter.probes.gpu.fake import FakeDriver
from esper_exporter.settings import OFF, ON, PREFIX

TRAINING_FAILED = 3
"""Exit code when the training failed after it began."""


def run(options: argparse.Namespace) -> int:
    """Train until the end or Ctrl-C, and return the exit code. Raises CommandError."""
    with _telemetry(options.telemetry_file) as file:
        display = Display(sys.stderr)
        exporter = start(lambda port: _exporter(options, port), options.port, display.say)
        try:
            with exporter:
                display.say(
                    f"open {exporter.url}; serving {exporter.url}/metrics;"
                    f" training until {_end(options)}"
                )
                _train(options, exporter, file, display)
        except KeyboardInterrupt:
            return OK
        except Exception:
            return TRAINING_FAILED  # reported before the wait for the scrapes
    return OK


def _train(
    options: argparse.Namespace, exporter: Exporter, file: IO[str] | None, display: Display
) -> None:
    # Imported once the page is up: torch alone takes seconds.
    import torch

    from esper_exporter.demo.faults import Faults
    from esper_exporter.demo.stream import Stream
    from esper_exporter.demo.training import Options, Training

    # Networks this small are no faster on more threads; leave the other cores free.
    torch.set_num_threads(1)
    training = Training(
        Options(
            seed=options.seed,
            envs=options.envs,
            slots=options.slots,
            epochs=options.epochs,
            updates=options.updates,
            compile=options.compile,
            amp=options.amp,
            dual_emit=options.dual_emit,
        ),
        Stream(exporter, file, options.dual_emit),
        Faults(options.inject, _stall),
    )
    try:
        for batch in training.batches():
            display.update(batch, _latches(exporter))
    except KeyboardInterrupt:
        display.close()
        display.say("interrupted")
        raise
    except Exception:
        display.close()
        display.say(traceback.format_exc() + "the training failed")
        raise
    display.close()
    display.say("the training is over")


def _stall() -> None:
    while True:
        signal.pause()


def _end(options: argparse.Namespace) -> str:
    return "Ctrl-C" if options.updates is None else f"update {options.updates} or Ctrl-C"


def _latches(exporter: Exporter) -> list[str]:
    """The set latches of heads and sources, of every run."""
    return [latch for run in exporter.summaries() for latch in run.latches]


def _exporter(options: argparse.Namespace, port: int | None) -> Exporter:
    return Exporter(
        port=port,
        allowed_hosts=options.allowed_host,
        strict=True,
        telemetry_dir=os.path.dirname(os.path.abspath(options.telemetry_file))
        if options.telemetry_file
        else None,
        gpu_vitals=ON if options.fake_gpus else None,
        gpu_driver=FakeDriver(options.fake_gpus) if options.fake_gpus else None,
        # A demo leaves no files unless an option names a place.
        state_dir=os.environ.get(f"{PREFIX}STATE_DIR") or OFF,
    )


@contextmanager
def _telemetry(name: str | None) -> Iterator[IO[str] | None]:
    if name is None:
        yield None
        return
    try:
        file = open(name, "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from error
    with file:
        yield file
