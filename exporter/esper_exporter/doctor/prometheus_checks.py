"""Checks of the Prometheus server: reachable, scraping, rules loaded, clock."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from esper_exporter.assets import assets
from esper_exporter.doctor.alertmanager_checks import check_alertmanagers
from esper_exporter.doctor.check_result import Finding, good, note, problem

TIMEOUT_SECONDS = 5.0
OLDEST = (2, 42)
LONGEST_INTERVAL_SECONDS = 20.0
"""An exporter waits for two scrapes, at most 45 s: a slower scraper misses a sudden end."""
CLOCK_SECONDS = 2.0
_ALERT = re.compile(r"^\s*- alert: (\w+)", re.MULTILINE)


def check_prometheus(address: str, wanted: str | None) -> Iterator[Finding]:
    """Run all checks of the server at ``address``.

    ``wanted`` is the HOST:PORT that it should scrape, None: any esper exporter.
    """
    try:
        build = _ask(address, "status/buildinfo")
    except (OSError, ValueError) as error:
        yield problem(
            "Prometheus",
            f"{address} does not answer ({_reason(error)})",
            "start it (`esper-exporter stack` runs this machine's), or name another with"
            " --prometheus URL",
        )
        return
    yield _version(address, str(build.get("version", "")))
    yield _clock(address)
    yield from _scraping(address, wanted)
    yield _rules(address)
    try:
        known = _ask(address, "alertmanagers")
    except (OSError, ValueError) as error:
        yield note("Alertmanager", f"{address} does not name its own ({_reason(error)})")
    else:
        yield from check_alertmanagers(known)


def _ask(address: str, path: str, **parameters: str) -> Any:
    """The data of an answer of the HTTP API. Raises OSError or ValueError."""
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    with urllib.request.urlopen(
        f"{address.rstrip('/')}/api/v1/{path}{query}", timeout=TIMEOUT_SECONDS
    ) as answer:
        found = json.load(answer)
    if not isinstance(found, dict) or "data" not in found:
        raise ValueError("it is not a Prometheus")
    return found["data"]


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(getattr(error.reason, "strerror", None) or error.reason)
    return "it is not a Prometheus" if isinstance(error, ValueError) else str(error)


def _version(address: str, version: str) -> Finding:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers and numbers < OLDEST:
        return problem(
            "Prometheus",
            f"{address} is version {version}, on which the rules are untested",
            "use 2.42 or newer",
        )
    return good("Prometheus", f"{address} answers, version {version or 'unknown'}")


def _clock(address: str) -> Finding:
    before = time.time()
    try:
        _, theirs = _ask(address, "query", query="time()")["result"]
    except (OSError, ValueError, KeyError) as error:
        return note("clock", f"{address} did not report its time ({_reason(error)})")
    ours = (before + time.time()) / 2
    difference = float(theirs) - ours
    if abs(difference) > CLOCK_SECONDS:
        where = "ahead of" if difference > 0 else "behind"
        return problem(
            "clock",
            f"Prometheus' clock is {abs(difference):.1f} s {where} this machine's",
            "run a time service on both (chrony, systemd-timesyncd): ages and 'last seen' are off"
            " by that much",
        )
    return good("clock", f"this machine's is within {CLOCK_SECONDS:g} s of {address}'s")


def _scraping(address: str, wanted: str | None) -> Iterator[Finding]:
    try:
        targets = _ask(address, "targets", state="active")["activeTargets"]
        shown = _ask(address, "query", query="esper_exporter_build_info")["result"]
    except (OSError, ValueError, KeyError) as error:
        yield problem("scraping", f"its targets cannot be read ({_reason(error)})", "look at it")
        return
    known = {one["metric"].get("instance") for one in shown}
    ours = [
        target
        for target in targets
        if (target["labels"].get("instance") == wanted if wanted else _is_esper(target, known))
    ]
    if not ours:
        yield problem(
            "scraping",
            f"Prometheus has no target {wanted}"
            if wanted
            else "Prometheus scrapes no esper target",
            "add a scrape job (examples/prometheus.yml), or let runs register themselves:"
            " ESPER_EXPORTER_FILE_SD",
        )
        return
    down = [target for target in ours if target["health"] == "down"]
    for target in down:
        yield problem(
            "scraping",
            f"{target['labels'].get('instance')} is down: {target.get('lastError') or 'unknown'}",
            "is the training running, and does it listen on an address that Prometheus reaches"
            " (ESPER_EXPORTER_HOST)?",
        )
    slow = [t for t in ours if _seconds(t.get("scrapeInterval", "")) > LONGEST_INTERVAL_SECONDS]
    if slow:
        yield problem(
            "scraping",
            f"every {slow[0]['scrapeInterval']}: a run that dies may be gone before the second"
            " scrape",
            "set scrape_interval to 15s or less for this job",
        )
    if not down and not slow:
        names = ", ".join(sorted(target["scrapeUrl"] for target in ours)[:3])
        more = ", …" if len(ours) > 3 else ""
        yield good(
            "scraping",
            f"{len(ours)} target{'s' * (len(ours) != 1)} of esper's, all up: {names}{more}",
        )


def _is_esper(target: Any, known: set[str | None]) -> bool:
    return target["labels"].get("job") == "esper" or target["labels"].get("instance") in known


def _seconds(duration: str) -> float:
    """A Prometheus duration, such as 1m30s, in seconds."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    return sum(float(n) * units[u] for n, u in re.findall(r"(\d+)(ms|s|m|h|d)", duration))


def shipped_alerts() -> set[str]:
    """The names of the package's alerts."""
    return {
        name
        for path, file in assets().items()
        if path.match("alerts/rules/*.yml") and path != PurePosixPath("alerts/rules/recording.yml")
        for name in _ALERT.findall(file.read_text(encoding="utf-8"))
    }


def _rules(address: str) -> Finding:
    try:
        groups = _ask(address, "rules", type="alert")["groups"]
    except (OSError, ValueError, KeyError) as error:
        return problem("rules", f"they cannot be read ({_reason(error)})", "look at it")
    rules = [rule for group in groups for rule in group["rules"]]
    wanted = shipped_alerts()
    missing = sorted(wanted - {rule["name"] for rule in rules})
    if len(missing) == len(wanted):
        return problem(
            "rules",
            "none of the package's alerts is loaded: nothing would fire",
            "`esper-exporter assets DIR` writes them; rule_files: [DIR/alerts/rules/*.yml]",
        )
    if missing:
        return problem(
            "rules",
            f"{len(missing)} of {len(wanted)} alerts are not loaded: {', '.join(missing[:3])}"
            + (", …" if len(missing) > 3 else ""),
            "load the rules of this version (`esper-exporter assets DIR --force`)",
        )
    failing = [rule for rule in rules if rule["name"] in wanted and rule.get("health") == "err"]
    if failing:
        return problem(
            "rules",
            f"{failing[0]['name']} cannot be evaluated: {failing[0].get('lastError', '')[:120]}",
            "see the server's rules page",
        )
    return good("rules", f"{address} has loaded all {len(wanted)} alerts")
