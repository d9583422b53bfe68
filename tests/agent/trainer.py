"""A training process that shares its page and ends as its arguments say.

usage: trainer.py SHARE RUN_ID RANK [step ...]

Steps: ``update N`` (a policy update with that index), ``nan HEAD`` (one in which the head is
NaN), ``ready`` (publishes and prints a line), ``wait`` (for a line on standard input),
``pause`` (until a signal ends it), a signal's name (``sigkill``: sends it to itself), ``exit N``
(os._exit), ``raise``, ``oom``, ``end``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from esper_exporter import Exporter

# Run as a program, and with other versions of the package.
sys.path.append(str(Path(__file__).parents[1]))

from support.training_events import STARTED, update


def _eat_memory() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(1 << 20)))


def main(share: str, run_id: str, rank: str, *steps: str) -> None:
    exporter = Exporter(
        share=share,
        run_id=run_id,
        rank=int(rank),
        port="off",  # type: ignore[arg-type]
        state_dir="off",
        host_vitals="off",
        gpu_vitals="off",
    )
    exporter.start()
    exporter.emit({"event_type": "TRAINING_STARTED", "timestamp": time.time(), "data": STARTED})
    left = list(steps)
    while left:
        step = left.pop(0)
        if step == "update":
            exporter.emit(update(int(left.pop(0))))
        elif step == "nan":
            exporter.emit(update(99, left.pop(0)))
        elif step == "ready":
            exporter.keep()  # publishes, as the next second would
            print("ready", flush=True)
        elif step == "wait":
            sys.stdin.readline()
        elif step == "pause":
            while True:
                signal.pause()
        elif step == "exit":
            os._exit(int(left.pop(0)))
        elif step == "raise":
            raise RuntimeError("the trainer raised")
        elif step == "oom":
            _eat_memory()
        elif step == "end":
            exporter.close()
        else:
            os.kill(os.getpid(), getattr(signal, step.upper()))


if __name__ == "__main__":
    main(*sys.argv[1:])
