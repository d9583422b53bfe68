"""Faults in a simulated fleet, one after the other: is each reported once, and nothing else?

usage: python -m benchmarks.chaos [--minutes M] [--interval S] [--seed N] [--only TEXT ...]

Fifteen light trainings on four simulated nodes (under ``esper-exporter run`` on two of them), an
agent a node, two Prometheus with the shipped rules, one Alertmanager with the shipped
configuration, VictoriaMetrics behind remote write. Trainings, agents and servers are killed, disks
filled (each node's share and state directory is a small tmpfs), a node's clock set (libfaketime).
Which alert each fault must raise stands in ``faults.py``, written by hand: it must reach a person
in one message, and no other message may come. In the end latches, counters, samples and files must
be whole. With less than an hour faults overlap. Prints a table; exits with 1 if anything was wrong.
Needs root, Prometheus, Alertmanager, VictoriaMetrics and libfaketime of Debian.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.chaos.checks import Problem, all_problems
from benchmarks.chaos.faults import Fault, faults
from benchmarks.chaos.fleet import Fleet, fleet
from benchmarks.chaos.messages import Message, Reported, judge, longest_silence
from benchmarks.chaos.nodes import FAKETIME
from benchmarks.chaos.schedule import schedule

WARM_INTERVALS = 8
"""Scrapes before the first fault."""
SETTLE_SECONDS = 60.0
SETTLE_INTERVALS = 6
"""After the last fault was mended: what was late is scraped, evaluated, sent and written."""
SILENCE_SECONDS = 300.0
"""The dead man's switch may be silent for less than this, or it raises the alarm."""


def play(scene: Fleet, plan: Sequence[tuple[float, Fault]], seconds: float) -> list[Reported]:
    """Make all faults at their times, and mend them."""
    begun = time.monotonic()
    reported = [Reported(float("inf"), fault.alerts) for _, fault in plan]
    steps = sorted(
        (at + after, number, place)
        for number, (at, fault) in enumerate(plan)
        for place, (after, _) in enumerate(fault.steps)
    )
    for at, number, place in steps:
        time.sleep(max(0.0, begun + at - time.monotonic()))
        fault = plan[number][1]
        if place == 0:
            reported[number].began = time.monotonic()
            print(f"{time.monotonic() - begun:5.0f} s  {fault.name}", flush=True)
        fault.steps[place][1]()
    time.sleep(max(0.0, begun + seconds - time.monotonic()))
    return reported


def describe(message: Message) -> str:
    """A message in one line."""
    alerts = [
        " ".join([labels["alertname"], *(labels[k] for k in ("run_id", "instance") if k in labels)])
        for labels in message.firing
    ]
    return f"{message.receiver}: {'; '.join(alerts)}"


def table(
    plan: Sequence[tuple[float, Fault]],
    reported: Sequence[Reported],
    false: Sequence[Message],
    problems: Sequence[Problem],
) -> list[str]:
    """The table of all faults."""
    strays: dict[int, int] = defaultdict(int)
    for message in false:
        begun = [n for n, each in enumerate(reported) if each.began <= message.at]
        strays[max(begun, key=lambda n: reported[n].began, default=0)] += 1
    lines = [
        "| fault | reported after | messages | false | state |",
        "|---|---|---|---|---|",
    ]
    for number, (_, fault) in enumerate(plan):
        found = reported[number]
        after = "missing" if found.wanted else "not to be"
        if found.seconds is not None:
            after = f"{found.seconds:.0f} s"
        whole = not any(subject in fault.touches for subject, _ in problems)
        lines.append(
            f"| {fault.name} | {after} | {found.messages} of {len(found.wanted)} |"
            f" {strays[number]} | {'whole' if whole else 'WRONG'} |"
        )
    return lines


def around(interval: float) -> tuple[float, float]:
    """Seconds before the first fault and after the last, of scrapes every ``interval``."""
    return WARM_INTERVALS * interval, SETTLE_SECONDS + SETTLE_INTERVALS * interval


def faults_seconds(minutes: float, interval: float) -> float:
    """What a trial of so many minutes leaves for the faults."""
    return minutes * 60 - sum(around(interval))


def try_all(options: argparse.Namespace) -> int:
    """The whole trial; how much was wrong."""
    with fleet(options.interval) as scene:
        chosen = [
            fault
            for fault in faults(scene)
            if not options.only or any(text in fault.name for text in options.only)
        ]
        if options.without:
            chosen = [f for f in chosen if not any(text in f.name for text in options.without)]
        warm, settle = around(options.interval)
        seconds = faults_seconds(options.minutes, options.interval)
        plan = schedule(chosen, seconds, options.seed)
        started = time.time()
        time.sleep(warm)
        print(f"· {len(plan)} faults in {seconds:.0f} s, seed {options.seed}", flush=True)
        reported = play(scene, plan, seconds)
        time.sleep(settle)
        false = judge(list(scene.receiver.messages), reported)
        latched = {run_id for fault in chosen for run_id in fault.latched}
        problems = all_problems(scene, latched, time.time() - started)
        silence = longest_silence(
            scene.receiver.messages, min(r.began for r in reported), time.monotonic()
        )
        if options.keep is not None:
            save_logs(scene, options.keep)
    print("\n".join(table(plan, reported, false, problems)))
    wrong = [
        f"{fault.name}: {w}" for (_, fault), r in zip(plan, reported, strict=True) for w in r.wrong
    ]
    wrong += [f"false: {describe(message)}" for message in false]
    wrong += [f"state of {subject}: {what}" for subject, what in problems]
    if silence > SILENCE_SECONDS:
        wrong.append(f"the dead man's switch was silent for {silence:.0f} s")
    print("\n".join(wrong))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}: {len(plan)} faults in {options.minutes:g} minutes,"
        f" scraped every {options.interval:g} s, {len(wrong)} wrong; the dead man's switch was"
        f" silent for {silence:.0f} s at most; load {os.getloadavg()[2]:.0f}"
    )
    return len(wrong)


def save_logs(scene: Fleet, folder: Path) -> None:
    """Keep what every process wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    places = [*(node.folder for node in scene.nodes.values()), scene.store.folder]
    for place in places:
        for log in place.glob("*.log"):
            (folder / f"{place.name}.{log.name}").write_bytes(log.read_bytes())
    lines = [f"{m.at:.1f} {describe(m)}" for m in scene.receiver.messages]
    (folder / "messages").write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of the whole trial (60)")
    parser.add_argument("--interval", type=float, default=15.0, help="of scrapes, seconds (15)")
    parser.add_argument("--seed", type=int, default=1, help="of the order and the gaps (1)")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="faults whose name has this")
    parser.add_argument("--without", nargs="+", metavar="TEXT", help="leave these faults out")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to keep the logs")
    options = parser.parse_args()
    if os.geteuid() != 0 or not Path(FAKETIME).exists():
        print("· not run: it needs root, and libfaketime (apt-get install faketime)")
        print("not proven here: that each fault of a fleet is reported once, and nothing else")
        return 0
    # Ended from outside, it ends its servers and trainings too, also where a shell ignores Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    return int(try_all(options) > 0)


if __name__ == "__main__":
    sys.exit(main())
