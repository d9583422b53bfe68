"""What runs while the trials go on: the fleet, the store, vmalert, the replicas."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.disks import Disk
from benchmarks.store.alert_inbox import Inbox, Labels
from benchmarks.store.sample_counts import Counts
from benchmarks.store.simulated_fleet import Fleet
from benchmarks.store.store_servers import (
    Server,
    prometheus,
    victoria_metrics,
    vmalert,
    wait_until,
    write_targets,
)

NORTH, SOUTH = "north", "south"
DISK_MEGABYTES = 512
SENDERS = ("replica-a", "replica-b", "vmalert")
LATE_SECONDS = 300.0
"""How much later one evaluator may send an alert than the other."""


@dataclass(frozen=True)
class Plan:
    """How large and how long, in seconds: between two scrapes of a run, between two evaluations of
    the rules, and how long the store is down, each time. ``day`` is how long that trial takes, and
    ``log`` the file that it adds its lines to."""

    runs: int
    interval: int
    evaluate: int
    outages: tuple[int, ...]
    programs: tuple[str, str]
    rules: Path
    day: float
    log: Path


@dataclass
class Site:
    """What runs while the trials go on."""

    plan: Plan
    folder: Path
    fleet: Fleet
    port: int
    box: Inbox
    say: Callable[[str], None]
    servers: list[Server] = field(default_factory=list)
    replicas: list[Server] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    """Of all samples that were compared."""
    compared: float = 0.0
    """How long these were scraped, in seconds."""
    disk: Disk | None = None
    """The store's, where it has a small one, so that a trial can fill it."""

    def keep(self, server: Server) -> Server:
        """Remember a server, so that it is stopped."""
        self.servers.append(server)
        return server

    @property
    def store(self) -> Server:
        """The long-term store."""
        return self.servers[0]

    def replica(self, number: int) -> Server:
        """Start a replica of the north's Prometheus."""
        name = f"replica-{'ab'[number]}"
        options = {
            "rules": self.plan.rules,
            "notify": self.box.address(name),
            "store": f"127.0.0.1:{self.store.port}",
            "interval": self.plan.interval,
            "evaluate": self.plan.evaluate,
        }
        targets = self.folder / "north.json"
        write_targets(targets, self.port, NORTH, range(self.plan.runs))
        program = self.plan.programs[number]
        server = prometheus(program, self.folder, name, NORTH, targets, options)
        self.replicas.append(self.keep(server))
        return server


def begin(site: Site) -> None:
    """The store, vmalert, and the first replica."""
    if os.geteuid() == 0 and site.plan.day == 0:
        with suppress(OSError, subprocess.CalledProcessError):
            site.disk = Disk(site.folder / "store", DISK_MEGABYTES)
    site.keep(victoria_metrics(site.folder, site.plan.interval))
    first = site.replica(0)
    notify = site.box.address("vmalert")
    site.keep(vmalert(site.folder, site.store, site.plan.rules, notify, site.plan.evaluate))
    wait_until(
        lambda: first.value('sum(up{job="esper"})') == site.plan.runs, "all runs are scraped"
    )


def named(labels: Labels) -> str:
    """An alert and what it is of."""
    found = dict(labels)
    return f"{found['alertname']} {found.get('run_id', found.get('instance', ''))}"


def sent_alerts(site: Site) -> dict[str, dict[Labels, float]]:
    """Alerts of the fleet's present runs by sender, and when each was first sent."""
    runs = f"{site.fleet.name}-"

    def wanted(labels: Labels) -> bool:
        found = dict(labels)
        # Without a cluster: the watchdog, which vmalert sends before the store has a sample.
        return bool(found.get("cluster")) and found.get("run_id", runs).startswith(runs)

    return {
        sender: {k: at for k, at in list(site.box.fired.get(sender, {}).items()) if wanted(k)}
        for sender in SENDERS
    }


def alert_differences(site: Site, before: float) -> list[str]:
    """Alerts of the north that not all have sent, with those that have, among those that were
    first sent before a time (Unix seconds)."""
    first: dict[Labels, dict[str, float]] = {}
    for sender, alerts in sent_alerts(site).items():
        for labels, at in alerts.items():
            if ("cluster", SOUTH) not in labels:
                first.setdefault(labels, {})[sender] = at
    return sorted(
        f"{named(labels)} by {' and '.join(who)} alone"
        for labels, who in first.items()
        if len(who) < len(SENDERS) and min(who.values()) < before
    )
