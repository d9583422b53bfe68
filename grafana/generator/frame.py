"""What all dashboards have in common: their variables, annotations and links."""

from __future__ import annotations

from grafana.generator.model import Annotation, Dashboard, Row, Variable
from grafana.generator.queries import EVERY_RUN, PROCESS, RUN, SCOPE, grown, select

CLUSTER = Variable(
    name="cluster",
    label="Cluster",
    query='label_values(esper_exporter_build_info{job=~"$job"}, cluster)',
    description="The label `cluster` of a global view; All where there is none.",
)
JOB = Variable(
    name="job",
    label="Job",
    query="label_values(esper_exporter_build_info, job)",
    description="The scrape job. A backfilled run has none, so All shows it too.",
)
RUNS = Variable(
    name="run",
    label="Run",
    query="query_result(sort_desc(max by (run_id) (last_over_time("
    'esper_run_start_timestamp_seconds{cluster=~"$cluster",job=~"$job"}[$__range]))))',
    regex='/run_id="([^"]*)"/',
    description="The runs of the time range, the newest first; choose several to compare them.",
    all=False,
    sort=0,
)
GROUP = Variable(
    name="group",
    label="Group",
    query="label_values(esper_run_start_timestamp_seconds{"
    'cluster=~"$cluster",job=~"$job",run_id=~"$run"}, group_id)',
    description="Groups of an A/B training; default where there is one only.",
)
GROUP_OF_ANY = Variable(
    name="group",
    label="Group",
    query="label_values(esper_run_start_timestamp_seconds{"
    'cluster=~"$cluster",job=~"$job"}, group_id)',
    description="Groups of A/B trainings; default where a run has one only.",
)
INSTANCE = Variable(
    name="instance",
    label="Instance",
    query='label_values(esper_exporter_build_info{cluster=~"$cluster",job=~"$job"}, instance)',
    description="The address of a process that is scraped.",
)
OF_A_RUN = (JOB, CLUSTER, RUNS, GROUP)


def of_a_run(name: str, label: str, metric: str, tag: str, description: str) -> Variable:
    """A variable over the values of a label of the chosen runs."""
    query = f"label_values({select(metric)}, {tag})"
    return Variable(name=name, label=label, query=query, description=description, sort=3)


def alerts(scope: str = "") -> Annotation:
    """When alerts began to fire; those of a run only for chosen runs, the others always.

    Only the beginning is marked: latches fire for a day, and a shade would cover what is drawn.
    """
    selector = (
        'ALERTS{alertstate="firing",alertname=~"Esper.*",severity!="none",cluster=~"$cluster|"'
        f"{scope}}}"
    )
    labels = "max by (alertname, severity, run_id, head, instance)"
    return Annotation(
        "Alerts",
        f"{labels} ({selector}) unless {labels} ({selector} offset 1m)",
        "{{alertname}} {{run_id}} {{head}}",
        "#d4403a",
        "severity,instance",
        step="1m",
    )


def run_marks(scope: str) -> tuple[Annotation, ...]:
    """When runs began and ended, when a latch was lit, and what the training lost."""

    def lost(name: str, *labels: str) -> str:
        return grown(name, (*RUN, *labels), scope) + " > 0"

    return (
        Annotation(
            "Run starts",
            f"1000 * max by (run_id) ({select('esper_run_start_timestamp_seconds', scope)})",
            "run {{run_id}} starts",
            "#4f7fbf",
            value_is_time=True,
        ),
        Annotation(
            "Run ends",
            f"1000 * max by (run_id) ({select('esper_run_end_timestamp_seconds', scope)})",
            "run {{run_id}} ends",
            "#8a8d96",
            value_is_time=True,
        ),
        Annotation(
            "Latches",
            "1000 * min by (run_id, head, kind) ("
            f"{select('esper_tamiyo_head_nonfinite_first_timestamp_seconds', scope)})",
            "{{kind}} in head {{head}} of {{run_id}}",
            "#a352cc",
            value_is_time=True,
        ),
        Annotation(
            "Failures",
            f"max by (run_id, reason) ({select('esper_run_failed', scope)}) == 1",
            "run {{run_id}} failed: {{reason}}",
            "#d4403a",
        ),
        Annotation(
            "Rollbacks",
            lost("esper_tolaria_rollbacks_total", "reason"),
            "rollback in {{run_id}}: {{reason}}",
            "#e5a823",
            step="1m",
        ),
        Annotation(
            "Skipped updates",
            lost("esper_tamiyo_updates_skipped_total", "reason"),
            "update skipped in {{run_id}}: {{reason}}",
            "#d55e00",
            step="1m",
        ),
    )


def of_runs(
    uid: str, title: str, description: str, rows: tuple[Row, ...], *more: Variable
) -> Dashboard:
    """A dashboard about one run, or a few side by side."""
    return Dashboard(
        uid=uid,
        title=title,
        description=description,
        rows=rows,
        variables=(*OF_A_RUN, *more),
        annotations=(alerts(',run_id=~"$run|"'), *run_marks(SCOPE)),
    )


def of_all_runs(uid: str, title: str, description: str, rows: tuple[Row, ...]) -> Dashboard:
    """A dashboard about every run there is."""
    return Dashboard(
        uid=uid,
        title=title,
        description=description,
        rows=rows,
        variables=(JOB, CLUSTER, GROUP_OF_ANY),
        annotations=(alerts(), *run_marks(EVERY_RUN)),
        time_from="now-6h",
    )


def of_processes(uid: str, title: str, description: str, rows: tuple[Row, ...]) -> Dashboard:
    """A dashboard about scraped processes, whatever runs in them."""
    return Dashboard(
        uid=uid,
        title=title,
        description=description,
        rows=rows,
        variables=(JOB, CLUSTER, INSTANCE),
        annotations=(alerts(), *run_marks(f"{PROCESS}")),
    )
