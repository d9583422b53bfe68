"""The trials, in the order of one timeline: boards, replicas, faults, outages, counts, alerts."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.store import dashboard_answers, month_of_runs, sample_counts
from benchmarks.store.day import day
from benchmarks.store.site import (
    LATE_SECONDS,
    NORTH,
    SOUTH,
    Site,
    alert_differences,
    named,
    sent_alerts,
)
from benchmarks.store.store_faults import SETTLE_SECONDS, compared, full_disk, killed, outage
from benchmarks.store.store_servers import (
    Server,
    TrialError,
    victoria_metrics,
    vmagent,
    vmauth,
    wait_until,
    write_targets,
)
from esper_exporter import Exporter

SOUTHERN_RUNS = 10
FAULTS = {
    11: "latch",
    13: "source",
    17: "failed",
    19: "gone",
    23: "skips",
    29: "kl",
    31: "finished",
}
"""Runs of the north and what happens to them."""
BOARD_SECONDS = 120
"""How far back the dashboards are asked for."""
SOUTHERN_FAULT = 4, "latch"
NUMBER = re.compile(r"[\d.]+")
"""What an annotation may differ in: a rate's value, or the moment of an evaluation."""


def boards(site: Site) -> None:
    """Every query of every dashboard answers the same, while the first replica is alone."""
    time.sleep(max(0.0, 160 - (time.time() - site.fleet.began)))
    interval = site.plan.interval
    moment = math.floor(time.time() / interval) * interval
    time.sleep(interval + 5)  # a scrape may take as long as its interval
    sample_counts.drained(site.replicas, moment)
    missing = compared(site, moment - BOARD_SECONDS, moment)
    if missing.lost:
        raise TrialError(f"the store lacks samples before the dashboards are asked: {missing}")
    found = dashboard_answers.compare(site.replicas[0], site.store, NORTH, float(moment), interval)
    site.say(
        f"{found.asked} queries of 7 dashboards: {found.same} the same, {found.empty} empty in both"
    )
    for reason, count in sorted(found.differing.items()):
        site.say(f"{count} × {reason}: {found.examples[reason]}")
    site.facts["dashboards"] = (
        f"{found.asked} queries, {found.same + found.empty} the same,"
        f" {found.differing.total()} explained"
    )
    for reason in found.differing.keys() - dashboard_answers.EXPLAINED:
        raise TrialError(f"{found.differing[reason]} × {reason}: {found.examples[reason]}")


def two_clusters(site: Site) -> None:
    """The second replica, and another cluster with runs of the same names, in the same store."""
    site.fleet.begin_again("night")
    second = site.replica(1)
    targets = site.folder / "south.json"
    write_targets(targets, site.port, SOUTH, range(SOUTHERN_RUNS))
    site.keep(vmagent(site.folder, SOUTH, targets, site.store, site.plan.interval))
    for cluster, runs in ((NORTH, site.plan.runs), (SOUTH, SOUTHERN_RUNS)):
        recorded = f'cluster:esper_runs:count{{cluster="{cluster}"}}'
        wait_until(
            lambda q=recorded, n=runs: site.store.value(q) == n,  # type: ignore[misc]
            f"{recorded} is {runs}, not {site.store.value(recorded):g}",
        )
        site.say(f"{recorded} = {runs}")
    active = 'count(esper_run_active{run_id=~"night-.*"})'
    for replica in (site.replicas[0], second):
        wait_until(
            lambda one=replica: one.value(active) == site.plan.runs,  # type: ignore[misc]
            f"{replica.name} has all runs",
            300.0,
        )
    site.fleet.go(2.0 * site.plan.interval)


def faults(site: Site) -> None:
    """Break some runs; each evaluator has to send the same alerts."""
    time.sleep(10)
    for run, kind in FAULTS.items():
        site.fleet.fault(NORTH, run, kind)
    site.fleet.fault(SOUTH, *SOUTHERN_FAULT)
    time.sleep(SETTLE_SECONDS)


def samples(site: Site) -> None:
    """Count every sample of every series in both replicas and in the store."""
    interval = site.plan.interval
    begin = math.ceil((site.fleet.began + 30) / interval) * interval
    end = math.floor((time.time() - 30) / interval) * interval
    sample_counts.drained(site.replicas, end + interval)
    time.sleep(5)
    counts = compared(site, begin, end)
    site.counts.add(counts)
    site.compared += end - begin
    site.facts |= {
        "time": f"{end - begin} s",
        "scrapes of a run, each replica": f"{(end - begin) // interval}, every {interval} s",
        "series": f"{counts.series:,}",
        "samples in both replicas": f"{counts.scraped:,}",
        "samples in the store, one an interval": f"{counts.stored:,} of {counts.windows:,}",
        "NaN, of which the store keeps none": f"{counts.not_numbers:,}",
        "of which one keeps the mark of a series' end": f"{counts.ended:,}",
        "lost": f"{counts.lost:,}",
        "in the store only when asked again": f"{counts.late:,}",
        "duplicates": f"{counts.duplicates:,}",
        "in no replica": f"{counts.foreign:,}",
        "requests that the store refused for good": f"{refused(site):,.0f} samples",
    }
    if counts.lost or counts.duplicates or counts.foreign:
        raise TrialError(f"not the same samples: {counts}")


def refused(site: Site) -> float:
    """Samples that the replicas dropped because the store answered so."""
    name = b"prometheus_remote_storage_samples_failed_total"
    return sum(
        float(line.rpartition(b" ")[2])
        for replica in site.replicas
        for line in replica.bytes("/metrics").splitlines()
        if line.startswith(name)
    )


def alerts(site: Site) -> None:
    """What vmalert sent for the north is what each replica sent: labels and annotations."""
    # A rate crosses its threshold a little earlier for one of them than for the others.
    asked = time.time()
    while alert_differences(site, asked) and time.time() < asked + LATE_SECONDS:
        time.sleep(1)
    sent = sent_alerts(site)
    northern = {k: at for k, at in sent["vmalert"].items() if ("cluster", SOUTH) not in k}
    southern = sent["vmalert"].keys() - northern.keys()
    differing = alert_differences(site, asked)
    apart = [abs(at - northern[k]) for k, at in sent["replica-a"].items() if k in northern]
    texts = site.box.annotations
    others = [
        named(k)
        for k in sent["replica-a"]
        if k in northern
        and NUMBER.sub("", str(texts["replica-a"][k])) != NUMBER.sub("", str(texts["vmalert"][k]))
    ]
    site.say(
        f"of the north: replica a sent {len(sent['replica-a'])} alerts, b"
        f" {len(sent['replica-b'])}, vmalert {len(northern)}"
    )
    names = sorted({dict(k)["alertname"] for k in northern})
    site.say(f"alerts: {', '.join(names)}")
    site.say(f"of the south: {', '.join(sorted(named(k) for k in southern))}")
    site.say(
        f"sent at most {max(apart, default=0):.0f} s apart; {len(others)} with other annotations"
        f"{': ' + others[0] if others else ''}"
    )
    for k, text in texts["replica-a"].items():
        other = texts["vmalert"].get(k, text)
        if text != other:
            key = next(key for key in text if text[key] != other.get(key))
            site.say(f"for example {named(k)}, {key}: {text[key]!r} and {other.get(key)!r}")
            break
    site.facts["alerts of the north"] = f"{len(northern)}"
    site.facts["alert differences"] = f"{len(differing)}"
    wanted = {f"EsperHeadNonFiniteLatched {site.fleet.name}-{SOUTHERN_FAULT[0]}"}
    if not wanted <= {named(k) for k in southern}:
        raise TrialError(f"the south's latch is missing among {sorted(map(named, southern))}")
    if wanted & {named(k) for k in northern}:
        raise TrialError("the south's latch fires for the north's run of the same name")
    if differing:
        raise TrialError(f"not sent by all: {'; '.join(differing)}")


def pushed(site: Site) -> None:
    """A run of a moment, behind no open port, pushes to the same store by way of vmauth."""
    gate = site.keep(vmauth(site.folder, site.store, "trainer", "s3cret"))
    url = f"http://trainer:s3cret@127.0.0.1:{gate.port}/api/v1/write"
    with Exporter(
        port="off",
        share="off",
        push=url,
        push_labels=f"cluster={NORTH},instance=laptop",
        state_dir=site.folder / "state",
        run_id="pushed",
    ) as exporter:
        exporter.emit({"event_type": "TRAINING_STARTED", "data": START})
        exporter.report_nonfinite("policy_loss")
    query = 'last_over_time(esper_tamiyo_nonfinite_latched{run_id="pushed"}[1h])'
    wait_until(lambda: site.store.value(query) == 1.0, "the pushed latch is stored")
    name = "EsperNonFiniteLatched"
    wait_until(
        lambda: any(
            ("run_id", "pushed") in labels and ("alertname", name) in labels
            for labels in list(site.box.fired.get("vmalert", {}))
        ),
        f"vmalert sends {name} of the pushed run",
    )
    site.say(f"a run of a moment: its latch is stored, vmalert sends {name}")


START = {
    "n_envs": 1,
    "max_epochs": 1,
    "max_batches": 1,
    "task": "t",
    "host_params": 1,
    "slot_ids": ["r0c0"],
    "seed": 1,
    "n_episodes": 1,
    "lr": 0.001,
    "clip_ratio": 0.2,
    "entropy_coef": 0.01,
    "param_budget": 1,
    "policy_device": "cpu",
    "env_devices": ["cpu"],
    "reward_mode": "shaped",
}


def month(site: Site) -> None:
    """Every dashboard's queries over 30 days of 200 runs and more answer within a second each."""
    late = 0
    for number, (words, plan) in enumerate(month_of_runs.MONTHS.items()):
        store = site.keep(month_store(site.folder / f"month-{number}"))
        end = (int(time.time()) // plan.step - 1) * plan.step
        series, count, seconds = month_of_runs.fill(store, plan, end)
        site.say(f"{words}: {series:,} series, {count:,} samples of 30 days in {seconds:.0f} s")
        asked = month_of_runs.ask(store, plan, end)
        store.stop()
        slow = [each for each in asked if each.seconds > month_of_runs.SLOW_SECONDS]
        ordered = sorted(asked, key=lambda each: each.seconds)
        longest, answered = ordered[-1], sum(bool(each.series) for each in asked)
        site.say(
            f"{len(asked)} queries, {answered} with an answer:"
            f" median {ordered[len(ordered) // 2].seconds:.2f} s,"
            f" longest {longest.seconds:.2f} s ({longest.board}, {longest.title})"
        )
        for each in slow:
            what = f"{each.board}, {each.title}: {each.query[:160]}"
            site.say(f"{each.seconds:.1f} s, {each.series} series: {what}")
        site.facts[f"30 days, {words}"] = (
            f"{len(asked)} queries, {len(slow)} beyond 1 s, longest {longest.seconds:.2f} s"
        )
        late += len(slow)
    if late:
        raise TrialError(f"{late} queries take longer than a second")


def month_store(folder: Path) -> Server:
    """A store for the month, apart from the other's samples."""
    return victoria_metrics(folder, 0, **{"search.maxPointsPerTimeseries": "30000"})


TRIALS: dict[str, Callable[[Site], None]] = {
    "dashboards": boards,
    "two clusters": two_clusters,
    "faults": faults,
    "outage": outage,
    "full disk": full_disk,
    "samples": samples,
    "SIGKILL": killed,
    "day": day,
    "alerts": alerts,
    "pushed": pushed,
    "month": month,
}
