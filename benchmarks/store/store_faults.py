"""What can happen to the store: it is away, its disk is full, it gets SIGKILL."""

from __future__ import annotations

import math
import os
import subprocess
import time
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime

import orjson

from benchmarks.chaos.disks import FILLER
from benchmarks.store import sample_counts
from benchmarks.store.sample_counts import Counts, Span
from benchmarks.store.site import NORTH, Site
from benchmarks.store.store_servers import TrialError, wait_until

SETTLE_SECONDS = 30.0
PATIENCE = 120.0
"""How long to ask again for samples that the store lacks."""
FULL_SECONDS = 30
LEFT_FREE = 8 << 20
"""Bytes: the store takes no more below 10 MB (``-storage.minFreeDiskSpaceBytes``)."""
SENT = "esper_.*|up|scrape_.*"
"""The metrics that a replica sends."""


def compared(site: Site, begin: float, end: float, patience: float = PATIENCE) -> Counts:
    """Hold the store against the replicas between two times, multiples of the interval."""
    runs = map(str, range(site.plan.runs))
    span = Span(NORTH, begin, end, site.plan.interval)
    return sample_counts.compare(site.replicas, site.store, span, runs, patience)


def outage(site: Site) -> None:
    """The store is away; the replicas keep what they scrape and send it afterwards."""
    for seconds in site.plan.outages:
        site.store.stop()
        time.sleep(seconds)
        site.store.start()
        back = time.monotonic()
        sample_counts.drained(site.replicas, time.time() - site.plan.interval, 300 + seconds)
        sent = time.monotonic() - back
        time.sleep(SETTLE_SECONDS)
        site.say(f"down for {seconds} s; all sent {sent:.0f} s after its start")
    site.facts["store down"] = ", ".join(f"{seconds} s" for seconds in site.plan.outages)


def full_disk(site: Site) -> None:
    """The store's disk is full for a while: it takes nothing, and the replicas try again."""
    if site.disk is None:
        site.say("· not run: a small disk (tmpfs) needs root; not proven here: a full disk")
        return
    filler = site.disk.path / FILLER
    free = os.statvfs(site.disk.path)
    size = free.f_bavail * free.f_frsize - LEFT_FREE
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    read_only = "vm_storage_is_read_only"
    wait_until(lambda: _metric(site, read_only) == 1.0, "the store takes no more")
    # What it had acknowledged before is on disk soon; then not a byte is free.
    time.sleep(10)
    site.disk.fill()
    time.sleep(FULL_SECONDS)
    site.disk.free()
    freed = time.monotonic()
    wait_until(lambda: _metric(site, read_only) == 0.0, "the store takes samples again")
    sample_counts.drained(site.replicas, time.time() - site.plan.interval)
    took = time.monotonic() - freed
    site.say(f"disk full for {FULL_SECONDS} s, all sent {took:.0f} s after it was freed")
    site.facts["disk of the store full"] = f"{FULL_SECONDS} s"
    time.sleep(SETTLE_SECONDS / 2)


def _metric(site: Site, name: str) -> float:
    for line in site.store.bytes("/metrics").decode().splitlines():
        if line.startswith(name):
            return float(line.rpartition(" ")[2])
    raise TrialError(f"the store has no {name}")


def killed(site: Site) -> None:
    """SIGKILL: what the store had acknowledged and not written is copied from the replicas."""
    interval = site.plan.interval
    moment = time.time()
    site.store.kill()
    time.sleep(interval)
    site.store.start()
    sample_counts.drained(site.replicas, time.time())
    time.sleep(max(0.0, moment + 2 * interval + 35 - time.time()))
    begin = math.floor(moment / interval - 8) * interval
    end = math.floor((time.time() - 30) / interval) * interval
    before = compared(site, begin, end, patience=10.0)
    seconds = repair(site, moment - 60, time.time())
    after = compared(site, begin, end)
    site.say(
        f"killed: {before.lost:,} of {before.windows:,} intervals around it are lost;"
        f" {after.lost:,} after a copy from the replicas, which took {seconds:.0f} s"
    )
    site.facts["lost by SIGKILL"] = f"{before.lost:,} of {before.windows:,}"
    site.facts["lost after the copy"] = f"{after.lost:,}"
    site.facts["duplicates after the copy"] = f"{after.duplicates:,}"
    if after.lost or after.duplicates or after.foreign:
        raise TrialError(f"not the same samples after the copy: {after}")


def repair(site: Site, begin: float, end: float) -> float:
    """Copy both replicas' samples between two times to the store with vmctl; it drops what it has.
    How long that took."""
    began = time.monotonic()
    for replica in site.replicas:
        asked = urllib.request.Request(f"{replica.url}/api/v1/admin/tsdb/snapshot", method="POST")
        with urllib.request.urlopen(asked, timeout=120) as body:
            answer = orjson.loads(body.read())
        folder = replica.folder / "data" / "snapshots" / answer["data"]["name"]
        command = [
            "vmctl",
            "prometheus",
            "-s",
            "--vm-disable-progress-bar",
            f"--prom-snapshot={folder}",
            f"--prom-filter-time-start={_rfc3339(begin)}",
            f"--prom-filter-time-end={_rfc3339(end)}",
            "--prom-filter-label=__name__",
            f"--prom-filter-label-value={SENT}",
            f"--vm-addr={site.store.url}",
            f"--vm-extra-label=cluster={NORTH}",
        ]
        _in_a_terminal(command)
    return time.monotonic() - began


def _in_a_terminal(command: list[str]) -> None:
    """Run vmctl, whose progress bar needs a terminal. Raises TrialError when it fails."""
    ours, its = os.openpty()
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its)
    os.close(its)
    printed = b""
    # Reading fails when the last process of the terminal has ended.
    with suppress(OSError):
        while text := os.read(ours, 65536):
            printed = (printed + text)[-800:]
    os.close(ours)
    if process.wait():
        raise TrialError(f"vmctl: {printed.decode('utf-8', 'replace')}")


def _rfc3339(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
