"""A training process that latches a NaN and ends in one of many ways; run as a program.

usage: trainer.py HOW [RUN_ID]

Prints the address of its page, and ``ended`` if it gets past its end. Settings come from the
environment. With TRAINER_HUB_DELAY the events go through a hub that delivers each so many seconds
late.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from esper_exporter import Exporter
from support.queueing_hub import QueueingHub
from support.recordings import telemetry_lines

LINES = telemetry_lines("run1")
STARTED = json.loads(LINES[0])
UPDATE = json.loads(next(line for line in LINES if b'"PPO_UPDATE_COMPLETED"' in line))


def latching(event_id: str = "latching") -> dict[str, Any]:
    """A policy update in which the op head produced NaN."""
    data = {**UPDATE["data"], "head_nan_detected": {"op": True}}
    return {**UPDATE, "event_id": event_id, "data": data}


def wait() -> None:
    """Run until the test ends the process."""
    print("waiting", flush=True)
    while True:
        time.sleep(60)


def _raise() -> None:
    raise RuntimeError("the loss is not finite")


def _oom() -> None:
    raise MemoryError("nothing left")


class _SaysNothing(RuntimeError):
    """An error whose text ends the process."""

    def __str__(self) -> str:
        raise SystemExit(5)


def _mute() -> None:
    raise _SaysNothing


def _masked() -> None:
    """Put SIGTERM off until it has come and been noticed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print("waiting", flush=True)
    while signal.SIGTERM not in signal.sigpending():
        time.sleep(0.01)
    print("put off", flush=True)


def _threads() -> None:
    """Print the threads of the exporter and those of them that take SIGTERM."""
    names, open_to = [], []
    for thread in threading.enumerate():
        if thread.name.startswith("esper-exporter"):
            names.append(thread.name)
            status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
            (blocked,) = (line for line in status.splitlines() if line.startswith("SigBlk:"))
            if not int(blocked.split()[1], 16) & 1 << (signal.SIGTERM - 1):
                open_to.append(thread.name)
    print(json.dumps([names, open_to]), flush=True)


def _thread() -> None:
    thread = threading.Thread(target=_raise)
    thread.start()
    thread.join()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _twice() -> None:
    """SIGTERM comes twice: to all processes of a job, and from a wrapper that passes it on."""
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    wait()


def _handled() -> None:
    def leave(number: int, frame: object) -> None:
        os.write(1, b"my own handler\n")  # print() may be what the signal interrupted
        raise SystemExit(7)

    signal.signal(signal.SIGTERM, leave)


ENDINGS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "oom": _oom,
    "thread": _thread,
    "threads": _threads,
    "mute": _mute,
    "masked": _masked,
    "return": lambda: None,
    "exit": lambda: sys.exit(3),
    "wait": wait,
    "handled": wait,
    "twice": _twice,
    "kill": _kill,
    "interrupt": lambda: signal.raise_signal(signal.SIGINT),
}


def main() -> None:
    how = sys.argv[1]
    if how == "handled":
        _handled()
    healthy = how.startswith("healthy-")
    exporter = Exporter(port=0, run_id=sys.argv[2] if len(sys.argv) > 2 else None)
    emit: Callable[[Any], object] = exporter.emit
    if "TRAINER_HUB_DELAY" in os.environ:
        hub = QueueingHub(delay=float(os.environ["TRAINER_HUB_DELAY"]))
        hub.add_backend(exporter)
        emit = hub.emit
        print(exporter.url, flush=True)
    elif os.environ.get("TRAINER_UNWATCHED") != "1":
        exporter.start()
        print(exporter.url, flush=True)
    emit(STARTED)
    if os.environ.get("TRAINER_GO") == "1":
        sys.stdin.readline()
    emit(UPDATE if healthy else latching())
    if os.environ.get("TRAINER_FINISHES") == "1":
        for line in LINES:
            if b'"BATCH_EPOCH_COMPLETED"' in line:
                exporter.emit_line(line)
    ENDINGS[how.removeprefix("healthy-")]()
    if os.environ.get("TRAINER_CLOSES") == "1":
        exporter.close()
    print("ended", flush=True)


if __name__ == "__main__":
    main()
