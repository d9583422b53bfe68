"""Checks of the Alertmanagers that a Prometheus sends to: reachable, receivers with an address."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from esper_exporter.doctor.check_result import Finding, good, note, problem

TIMEOUT_SECONDS = 5.0
SILENT_RECEIVERS = frozenset({"nobody"})
"""Receivers that are meant to have no address."""
_RECEIVER = re.compile(r"^- name: (.+)$")
_ADDRESS = re.compile(r"^  \w+_configs:$")


def check_alertmanagers(known: Any) -> Iterator[Finding]:
    """Run all checks; ``known`` is the answer of Prometheus' API ``alertmanagers``."""
    addresses = [one["url"].split("/api/")[0] for one in known.get("activeAlertmanagers", [])]
    if not addresses:
        yield note(
            "Alertmanager",
            "Prometheus sends alerts to none: they fire, and notify no one",
            "add it under `alerting` in prometheus.yml, see alerts/README.md",
        )
    for address in addresses:
        try:
            status = _status(address)
            config = str(status["config"]["original"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield problem(
                "Alertmanager",
                f"{address} does not answer ({error}): no one is notified",
                "start it, or correct its address under `alerting` in prometheus.yml",
            )
            continue
        yield _receivers(address, config)


def _status(address: str, opened: Callable[..., Any] = urllib.request.urlopen) -> Any:
    if urlsplit(address).scheme not in ("http", "https"):
        raise ValueError("not an HTTP address")
    with opened(f"{address}/api/v2/status", timeout=TIMEOUT_SECONDS) as answer:
        return json.load(answer)


def receivers_without_address(config: str) -> list[str]:
    """The receivers that reach no one, of a configuration as Alertmanager prints it."""
    _, _, section = config.partition("\nreceivers:\n")
    addressed: dict[str, bool] = {}
    name = ""
    for line in section.splitlines():
        if found := _RECEIVER.match(line):
            name = found[1].strip("'\"")
            addressed[name] = False
        elif _ADDRESS.match(line) and name:
            addressed[name] = True
        elif not line.startswith((" ", "-")):
            break  # the next section
    return [name for name, known in addressed.items() if not known and name not in SILENT_RECEIVERS]


def _receivers(address: str, config: str) -> Finding:
    empty = receivers_without_address(config)
    if empty:
        return note(
            "Alertmanager",
            f"{address} answers; its receivers {', '.join(empty)} have no address: what goes there"
            " reaches no one",
            "put yours into alertmanager.yml, as alerts/receivers.example.yml shows",
        )
    return good("Alertmanager", f"{address} answers, and each receiver has an address")
