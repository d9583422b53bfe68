"""A day of live runs in two replicas and the store, counted part by part as it passes.

Each part's counts are a line of JSON in a file; a trial that ends early and is started again
counts on from there. Prometheus keeps a few hours, so its disk does not grow with the day.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import fields
from datetime import UTC, datetime

import orjson

from benchmarks.store import sample_counts
from benchmarks.store.sample_counts import Counts
from benchmarks.store.site import LATE_SECONDS, Site, alert_differences
from benchmarks.store.store_faults import compared
from benchmarks.store.store_servers import TrialError

PART_SECONDS = 600.0
BEHIND_SECONDS = 45.0
"""How much later than its end a part is counted."""
COUNTED = tuple(
    each.name for each in fields(Counts) if each.type == "int" and each.name != "series"
)


def day(site: Site) -> None:
    """Let the fleet train for ``plan.day`` seconds, with the store's outages spread over them."""
    plan = site.plan
    if not plan.day:
        raise TrialError("--hours says how long the day is")
    done = _read(site)
    remaining = plan.day - sum(line["seconds"] for line in done)
    if done:
        site.say(f"{plan.log} has {plan.day - remaining:.0f} s already")
    began = time.time()
    # No outage begins while a part is counted, and none is counted in an outage.
    turn = threading.Lock()
    outages = threading.Thread(target=_outages, args=(site, turn, began, remaining), daemon=True)
    outages.start()
    first = _multiple(max(began, site.fleet.began + 30), plan.interval)
    while (left := began + remaining - first) > plan.interval:
        last = _multiple(first + min(PART_SECONDS, left), plan.interval)
        time.sleep(max(0.0, last + BEHIND_SECONDS - time.time()))
        with turn:
            sample_counts.drained(site.replicas, last, 1200)
            found = compared(site, first, last)
        line = {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
            "runs": plan.runs,
            "interval": plan.interval,
            "seconds": last - first,
            "series": found.series,
            **{name: getattr(found, name) for name in COUNTED},
            "alerts": len(site.box.fired.get("vmalert", {})),
            "alert_differences": len(alert_differences(site, time.time() - LATE_SECONDS)),
        }
        with plan.log.open("ab") as file:
            file.write(orjson.dumps(line) + b"\n")
        site.say(f"{line['date']}: {found.stored:,} of {found.windows:,}, {found.lost:,} lost")
        if found.lost:
            site.say(f"first lost: {found.first_lost}")
        first = last
    outages.join()
    total = _read(site)
    for name in COUNTED:
        setattr(site.counts, name, int(sum(line[name] for line in total)))
    site.counts.series = int(max(line["series"] for line in total))
    site.compared = sum(line["seconds"] for line in total)
    bad = site.counts.lost + site.counts.duplicates + site.counts.foreign
    if bad:
        raise TrialError(f"not the same samples: {site.counts}")


def _multiple(moment: float, interval: int) -> int:
    return math.ceil(moment / interval) * interval


def _read(site: Site) -> list[dict[str, float]]:
    """The parts so far of the same runs and interval."""
    if not site.plan.log.exists():
        return []
    lines = map(orjson.loads, site.plan.log.read_bytes().splitlines())
    wanted = (site.plan.runs, site.plan.interval)
    return [line for line in lines if (line["runs"], line["interval"]) == wanted]


def _outages(site: Site, turn: threading.Lock, began: float, seconds: float) -> None:
    outages = site.plan.outages
    for number, away in enumerate(outages, start=1):
        at = began + seconds * number / (len(outages) + 1)
        time.sleep(max(0.0, at - time.time()))
        with turn:
            site.store.stop()
            time.sleep(away)
            site.store.start()
        site.say(f"the store was down for {away} s")
    site.facts["store down"] = ", ".join(f"{away} s" for away in outages)
