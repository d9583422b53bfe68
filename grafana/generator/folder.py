"""The dashboards there are, and the files that they become."""

from __future__ import annotations

from grafana.generator import environments, everything, fleet, heads, machine, own_health, policy
from grafana.generator.classic_json import text
from grafana.generator.model import Dashboard

_WRITTEN = (
    fleet.DASHBOARD,
    heads.DASHBOARD,
    policy.DASHBOARD,
    environments.DASHBOARD,
    machine.DASHBOARD,
    own_health.DASHBOARD,
)
DASHBOARDS: tuple[Dashboard, ...] = (*_WRITTEN, everything.dashboard(_WRITTEN))


def files() -> dict[str, str]:
    """The content of each file of grafana/dashboards by its name."""
    return {f"{dashboard.uid}.json": text(dashboard) for dashboard in DASHBOARDS}
