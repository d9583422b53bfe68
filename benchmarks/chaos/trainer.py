"""A light training that shares its page and does what standard input says.

usage: trainer.py SHARE RUN_ID COUNT_FILE STATE_DIR SECONDS

It emits a policy update every SECONDS, and appends one byte to COUNT_FILE for each, so that the
number is known whatever ends it. STATE_DIR is ``off``, or where latches are kept. Commands, a line
each: ``nan HEAD`` (an update in which the head is NaN, then on as before), ``raise``,
``nan-kill HEAD`` (the same update, then SIGKILL to itself), ``end`` (end well).
"""

from __future__ import annotations

import os
import random
import selectors
import signal
import sys
import time
from pathlib import Path

from esper_exporter import Exporter

sys.path.append(str(Path(__file__).parents[2] / "tests"))

from support import training_events

STARTED = training_events.STARTED | {"max_batches": 100_000, "n_episodes": 100_000}


def update(index: int, numbers: random.Random, nan_head: str | None = None) -> dict[str, object]:
    """A healthy policy update, but for the head that is NaN."""
    norm = numbers.uniform(0.4, 0.8)
    return training_events.update(
        index,
        nan_head,
        policy_loss=numbers.uniform(-0.1, 0.1),
        value_loss=numbers.uniform(0.1, 0.3),
        entropy=numbers.uniform(0.9, 1.1),
        grad_norm=norm,
        pre_clip_grad_norm=norm,
        kl_divergence=numbers.uniform(0.005, 0.01),
        clip_fraction=numbers.uniform(0.05, 0.1),
    )


def main(share: str, run_id: str, count_file: str, state_dir: str, seconds: str) -> None:
    numbers = random.Random(run_id)
    exporter = Exporter(share=share, run_id=run_id, port="off", state_dir=state_dir)  # type: ignore[arg-type]
    exporter.start()
    exporter.emit({"event_type": "TRAINING_STARTED", "timestamp": time.time(), "data": STARTED})
    count = os.open(count_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    made = 0

    def emit(nan_head: str | None = None) -> None:
        nonlocal made
        made += 1
        exporter.emit(update(made, numbers, nan_head))
        os.write(count, b".")

    emit()
    exporter.keep()
    print(os.getpid(), flush=True)
    commands = selectors.DefaultSelector()
    commands.register(0, selectors.EVENT_READ)
    due = time.monotonic() + float(seconds)
    while True:
        if not commands.select(max(0.0, due - time.monotonic())):
            emit()
            due += float(seconds)
            continue
        command, _, head = os.read(0, 100).decode().strip().partition(" ")
        if command == "nan":
            emit(head)
        elif command == "nan-kill":
            emit(head)
            os.kill(os.getpid(), signal.SIGKILL)
        elif command == "raise":
            raise RuntimeError("the trainer raised")
        else:
            exporter.close()
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
