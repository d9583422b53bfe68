"""What each trial does on the cluster, and what a Prometheus must have seen of it afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.slurm.node import NODE, PARTITION, Cluster, TrialError, wait_until
from benchmarks.slurm.prometheus import Prometheus

RUNBOOK = Path(__file__).parents[2] / "alerts" / "runbooks" / "EsperGpuXid.md"

JOB = """\
#!/bin/sh
#SBATCH --output=job-%j.log --open-mode=append
export ESPER_EXPORTER_STATE_DIR=$HOME/state
exec srun {srun} {wrapper} /opt/esper/venv/bin/python /opt/esper/trainer.py {arguments}
"""
WRAPPER = '/opt/esper/venv/bin/esper-exporter run --run-id "$SLURM_JOB_ID" --'


def script(arguments: str, srun: str = "", wrapper: str = WRAPPER) -> str:
    """A batch script."""
    return JOB.format(arguments=arguments, srun=srun, wrapper=wrapper)


@dataclass(frozen=True)
class Site:
    """The cluster, the Prometheus that watches it, and where results go."""

    cluster: Cluster
    prometheus: Prometheus
    say: Callable[[str], None]

    def failed(self, job: str, reason: str, ranks: int) -> None:
        """So many ranks of a job's run ended for a reason, and the alert fires where it must."""
        wanted = f'run_id="{job}",reason="{reason}"'
        self.prometheus.wait_for(f"max_over_time(esper_run_failed{{{wanted}}}[10m]) == 1", ranks)
        alert = f'ALERTS{{alertname="EsperRunFailed",alertstate="firing",{wanted}}}'
        seen = f'{ranks} × esper_run_failed{{reason="{reason}"}}'
        if reason == "signal":
            # A person or Slurm wanted it.
            if self.prometheus.count(f"last_over_time({alert}[10m])"):
                raise TrialError(f"EsperRunFailed fires for job {job}, which was ended on purpose")
            self.say(f"{seen}, which raises no alert")
            return
        self.prometheus.wait_for(f"last_over_time({alert}[10m])", ranks)
        self.say(f"{seen}, EsperRunFailed fires")

    def running(self, job: str, ranks: int) -> None:
        """Prometheus sees so many ranks of a job's run at work."""
        self.prometheus.wait_for(f'esper_run_active{{run_id="{job}"}} == 1', ranks)


def two_ranks(site: Site) -> None:
    """Prolog, registration, two ranks on one port, the job's labels, a good end, epilog."""
    cluster, prometheus = site.cluster, site.prometheus
    job = cluster.submit(script("--seconds 20"), "--ntasks=2")
    site.running(job, 2)
    agents, targets = cluster.agents("ada"), cluster.target_files("ada")
    if (len(agents), len(targets)) != (1, 1):
        raise TrialError(f"{len(agents)} agents with {len(targets)} target files, not one")
    site.say("the prolog started one agent with one target file")
    if prometheus.count(f'count by (instance) (esper_run_active{{run_id="{job}"}})') != 1:
        raise TrialError("the ranks are on several ports")
    info = f'run_id="{job}",job_id="{job}",partition="{PARTITION}",user="ada"'
    prometheus.wait_for(f"esper_run_info{{{info}}}", 2)
    others = prometheus.count('{job_id!="",__name__!="esper_run_info"}')
    if others:
        raise TrialError(f"{others} series beside esper_run_info carry the job")
    site.say("2 × esper_run_info with job_id, partition and user; no other series has them")
    cluster.wait_for_state(job, "COMPLETED")
    prometheus.wait_for(f'max_over_time(esper_run_finished{{run_id="{job}"}}[5m]) == 1', 2)
    wait_until(lambda: not cluster.agents("ada"), "the epilog ended the agent")
    if cluster.target_files("ada"):
        raise TrialError("the target file stays")
    site.say("COMPLETED, 2 × esper_run_finished; the epilog ended the agent, its target is gone")


def nan_at_death(site: Site) -> None:
    """A NaN in the last moment of a job: rank 1 dies, srun ends rank 0, the epilog follows."""
    job = site.cluster.submit(
        script("--nan 1 --exit-after-nan", srun="--kill-on-bad-exit=1"), "--ntasks=2"
    )
    site.cluster.wait_for_state(job, "FAILED")
    latch = f'run_id="{job}",rank="1",head="op",kind="nan"'
    site.prometheus.wait_for(
        f"max_over_time(esper_tamiyo_head_nonfinite_latched{{{latch}}}[5m]) == 1", 1
    )
    alert = f'ALERTS{{alertname="EsperHeadNonFiniteLatched",alertstate="firing",{latch}}}'
    site.prometheus.wait_for(f"last_over_time({alert}[10m])", 1)
    site.say("the latch of rank 1 reached Prometheus after the job: EsperHeadNonFiniteLatched")
    site.failed(job, "exit", 1)
    site.failed(job, "signal", 1)


def cancelled(site: Site) -> None:
    """scancel: SIGTERM for every rank."""
    job = site.cluster.submit(script(""), "--ntasks=2")
    site.running(job, 2)
    site.cluster.call("scancel", job, user="ada")
    site.cluster.wait_for_state(job, "CANCELLED")
    site.failed(job, "signal", 2)


def begin_time_limit(site: Site) -> str:
    """A job of another user with a limit of one minute and a warning before."""
    return site.cluster.submit(
        script(""), "--ntasks=1", "--time=1", "--signal=USR1@30", user="grace"
    )


def end_time_limit(site: Site, job: str) -> None:
    """--signal reached the training, which wrote a checkpoint; then the limit ended it."""
    home = site.cluster.root / "home/grace"
    checkpoint = home / f"checkpoint-{job}-0"
    wait_until(checkpoint.exists, "SIGUSR1 reached the training", 120)
    site.say("--signal=USR1@30 reached the training through srun and the wrapper: checkpoint")
    site.cluster.wait_for_state(job, "TIMEOUT", seconds=180)
    site.failed(job, "signal", 1)


def requeued(site: Site) -> None:
    """scontrol requeue: the same run continues under its id, with the latch of its first life."""
    cluster, prometheus = site.cluster, site.prometheus
    job = cluster.submit(script("--nan 0 --nan-in-first-life"), "--ntasks=2", "--requeue")
    latch = f'esper_tamiyo_head_nonfinite_latched{{run_id="{job}",head="op",kind="nan"}} == 1'
    prometheus.wait_for(latch, 1)
    first = prometheus.query(f'esper_run_start_timestamp_seconds{{run_id="{job}",rank="0"}}')[0][1]
    cluster.call("scontrol", "requeue", job, user="ada")
    wait_until(lambda: cluster.job(job).get("Restarts") == "1", "the job has been requeued")
    cluster.wait_for_state(job, "PENDING", "RUNNING")
    # Slurm waits two minutes before a requeued job may start; root need not.
    cluster.call("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)
    again = f'esper_run_start_timestamp_seconds{{run_id="{job}",rank="0"}} > {first}'
    prometheus.wait_for(again, 1, 200)
    site.running(job, 2)
    prometheus.wait_for(latch, 1)
    names = prometheus.count(f'count by (run_id) (esper_run_active{{run_id=~"{job}.*"}})')
    if names != 1:
        raise TrialError(f"the run has {names} names")
    site.say("requeued: the second life has the same run_id, and the latch of the first")
    cluster.call("scancel", job, user="ada")
    cluster.wait_for_state(job, "CANCELLED")


def out_of_memory(site: Site) -> None:
    """A rank that eats more than --mem."""
    job = site.cluster.submit(script("--eat"), "--ntasks=1", "--mem=250")
    site.cluster.wait_for_state(job, "OUT_OF_MEMORY", "FAILED", "CANCELLED", seconds=120)
    state = site.cluster.job(job).get("JobState")
    if site.cluster.confines_memory:
        site.say(f"the control group's limit of 250 MB: {state}")
        site.failed(job, "oom", 1)
    else:
        # Slurm kills the wrapper along with the training: nothing is left that knows more.
        site.say(f"Slurm's own watch killed the step: {state}")
        site.failed(job, "died", 1)


def commands_of(runbook: Path, heading: str) -> list[str]:
    """The shell commands of a runbook's section."""
    section = runbook.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    (block,) = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [line.split("#")[0].strip() for line in block.splitlines() if line.strip()]


def drained(site: Site) -> None:
    """EsperGpuXid fires for a job without an agent; its runbook drains the node and brings it
    back."""
    cluster, prometheus = site.cluster, site.prometheus
    environment = (
        f"ALL,ESPER_EXPORTER_SHARE=off,ESPER_EXPORTER_PORT=0,ESPER_EXPORTER_HOST={NODE},"
        "ESPER_EXPORTER_FILE_SD=/shared/targets"
    )
    job = cluster.submit(
        script("--fake-gpu", wrapper='env ESPER_RUN_ID="$SLURM_JOB_ID"'),
        "--ntasks=1",
        f"--export={environment}",
    )
    alert = 'ALERTS{alertname="EsperGpuXid",alertstate="firing",xid="79"}'
    prometheus.wait_for(alert, 1)
    (labels, _), *_ = prometheus.query(alert)
    node = labels["instance"].partition(":")[0]
    site.say(f"EsperGpuXid fires for {labels['instance']}")
    drain, look, requeue, resume = commands_of(RUNBOOK, "Drain the node (Slurm)")
    for command in (drain, look, requeue):
        words = command.replace("NODE", node).replace("JOB", job)
        cluster.call("sh", "-c", words)
    # The requeued job waits for a node that is not drained.
    wait_until(lambda: cluster.job(job).get("JobState") == "PENDING", "the job is pending again")
    cluster.call("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)
    wait_until(lambda: cluster.node_state() == "drain", "the node is drained")
    reason = cluster.call("sinfo", "-h", "-R", "-o", "%E").stdout.strip()
    site.say(f"drained by the runbook's commands, reason: {reason}")
    cluster.call("sh", "-c", resume.replace("NODE", node))
    wait_until(lambda: cluster.node_state() in ("idle", "mix"), "the node is back")
    cluster.call("scancel", job)
    cluster.wait_for_state(job, "CANCELLED")
    site.say("resumed; the requeued job waited meanwhile")


TRIALS: dict[str, Callable[[Site], None]] = {
    "two ranks": two_ranks,
    "NaN in the last second": nan_at_death,
    "scancel": cancelled,
    "requeue": requeued,
    "out of memory": out_of_memory,
    "drain": drained,
}
