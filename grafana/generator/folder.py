"""The dashboards there are, and the files that they become."""

from __future__ import annotations

from grafana.generator import environments, fleet, heads, machine, own_health, policy
from grafana.generator.classic_json import text
from grafana.generator.model import Dashboard

DASHBOARDS: tuple[Dashboard, ...] = (
    fleet.DASHBOARD,
    heads.DASHBOARD,
    policy.DASHBOARD,
    environments.DASHBOARD,
    machine.DASHBOARD,
    own_health.DASHBOARD,
)


def files() -> dict[str, str]:
    """The content of each file of grafana/dashboards by its name."""
    return {f"{dashboard.uid}.json": text(dashboard) for dashboard in DASHBOARDS}
