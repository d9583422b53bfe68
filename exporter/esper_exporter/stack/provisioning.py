"""Configure the stack's servers: scrape targets, rules, routes, dashboards.

Rules, routes and dashboards are the package's files, used in place; only addresses and folders
are specific to this machine. JSON is YAML, so this needs no YAML library.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from esper_exporter.assets import assets


@dataclass(frozen=True, slots=True)
class Scraped:
    """What Prometheus scrapes: addresses, folders of target files, and the interval in seconds."""

    targets: Sequence[str]
    folders: Sequence[Path]
    interval: float


def _shipped(name: str) -> Path:
    """The path of a file of the package."""
    return assets()[PurePosixPath(name)]


def rules_folder() -> Path:
    """The folder of the alerting and recording rules."""
    return _shipped("alerts/rules/latches.yml").parent


def prometheus_config(scraped: Scraped, prometheus: str, alertmanager: str | None) -> str:
    """prometheus.yml; ``prometheus`` and ``alertmanager`` are the servers' HOST:PORT."""
    duration = f"{scraped.interval * 1000:.0f}ms"
    esper: dict[str, object] = {
        "job_name": "esper",
        "sample_limit": 150000,
        "static_configs": [{"targets": list(scraped.targets)}],
        "file_sd_configs": [
            {"files": [f"{folder}/*.json"], "refresh_interval": duration}
            for folder in scraped.folders
        ],
        "relabel_configs": [{"source_labels": ["__meta_esper_host"], "target_label": "host"}],
    }
    jobs: list[dict[str, object]] = [
        esper,
        {"job_name": "prometheus", "static_configs": [{"targets": [prometheus]}]},
    ]
    config: dict[str, object] = {
        "global": {
            "scrape_interval": duration,
            "scrape_timeout": f"{min(scraped.interval, 10.0) * 1000:.0f}ms",
            "evaluation_interval": duration,
        },
        "rule_files": [f"{rules_folder()}/*.yml"],
        "scrape_configs": jobs,
    }
    if alertmanager is not None:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        jobs.append({"job_name": "alertmanager", "static_configs": [{"targets": [alertmanager]}]})
    return json.dumps(config, indent=1) + "\n"


def alertmanager_config(own: Path | None = None) -> str:
    """alertmanager.yml: the shipped routes, or the user's file unchanged."""
    if own is not None:
        return own.read_text(encoding="utf-8")
    templates = _shipped("alerts/templates/esper.tmpl").parent
    text = _shipped("alerts/alertmanager.yml").read_text(encoding="utf-8")
    return text.replace("/etc/alertmanager/templates", str(templates))


def write_grafana(folder: Path, prometheus: str, alertmanager: str | None) -> None:
    """Write Grafana's provisioning folder: data sources by address, and the dashboards."""
    dashboards = _shipped("grafana/dashboards/esper-fleet.json").parent
    sources = _shipped("grafana/provisioning/datasources/esper.yml").read_text(encoding="utf-8")
    sources = sources.replace("http://prometheus:9090", f"http://{prometheus}")
    if alertmanager is not None:
        sources = sources.replace("http://alertmanager:9093", f"http://{alertmanager}")
    else:
        sources = sources[: sources.index("  - name: Alertmanager")]
    provider = _shipped("grafana/provisioning/dashboards/esper.yml").read_text(encoding="utf-8")
    provider = provider.replace("/etc/grafana/dashboards", str(dashboards))
    for name, text in (("datasources", sources), ("dashboards", provider)):
        (folder / name).mkdir(parents=True)
        (folder / name / "esper.yml").write_text(text, encoding="utf-8")
    for name in ("plugins", "alerting"):
        (folder / name).mkdir()
