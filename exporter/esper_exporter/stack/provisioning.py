"""Configuration of the stack's servers: what is scraped, the rules, the routes, the dashboards.

Rules, routes and dashboards are those that come with the package, used where they lie; only
addresses and folders are of this machine. JSON is YAML, so nothing here needs a YAML library.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from esper_exporter.assets import assets


@dataclass(frozen=True, slots=True)
class Scraped:
    """What Prometheus scrapes: addresses, folders of target files, and every how many seconds."""

    targets: Sequence[str]
    folders: Sequence[Path]
    interval: float


def _shipped(name: str) -> Path:
    """Where a file that comes with the package lies."""
    return assets()[PurePosixPath(name)]


def rules_folder() -> Path:
    """The folder of the alerting and recording rules."""
    return _shipped("alerts/rules/latches.yml").parent


def prometheus_config(scraped: Scraped, prometheus: str, alertmanager: str | None) -> str:
    """prometheus.yml; ``prometheus`` and ``alertmanager`` are the servers' own HOST:PORT."""
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
    """alertmanager.yml: the shipped routes, or the given file of the user's own as it is."""
    if own is not None:
        return own.read_text(encoding="utf-8")
    templates = _shipped("alerts/templates/esper.tmpl").parent
    text = _shipped("alerts/alertmanager.yml").read_text(encoding="utf-8")
    return text.replace("/etc/alertmanager/templates", str(templates))


def write_grafana(folder: Path, prometheus: str, alertmanager: str | None) -> None:
    """Grafana's provisioning folder: the data sources by their addresses, and the dashboards."""
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
