#!/usr/bin/env bash
# Ends the node agent of a job's user once no other job and no process of this user needs it. The agent stays up to its
# --linger for Prometheus to fetch how the job ended.
# As Slurm's Epilog, which runs once a node and as root:    Epilog=/path/to/epilog.sh in slurm.conf
# At the end of a batch script, as the user:                deploy/slurm/epilog.sh --wait    (Slurm kills what a batch script leaves)
set -eu
defaults=${ESPER_EXPORTER_DEFAULTS:-/etc/default/esper-exporter}
if [ -r "$defaults" ]; then
    set -a
    . "$defaults"
    set +a
fi
if [ "$(id -u)" -eq 0 ] && [ -n "${SLURM_JOB_USER:-}" ] && [ "$SLURM_JOB_USER" != root ]; then
    exec runuser -u "$SLURM_JOB_USER" -- "$0" "$@"
fi
share=${ESPER_EXPORTER_SHARE:-/dev/shm/esper-exporter-$(id -u)}
[ -z "${SLURM_JOB_ID:-}" ] || rm -f "$share/jobs/$SLURM_JOB_ID"
for job in "$share"/jobs/*; do
    [ ! -e "$job" ] || exit 0
done
for lock in "$share"/*/lock; do
    # A lock that can be had belongs to a process that is gone.
    if [ -e "$lock" ] && ! flock -n "$lock" true; then
        exit 0
    fi
done
# Agents have the lock's file open, those that wait for their turn too; what else looks at it is left alone.
pids=
for process in /proc/[0-9]*; do
    if [ -O "$process" ] && tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -q 'esper.exporter agent ' &&
        find "$process/fd" -lname "$share/agent.lock" 2>/dev/null | grep -q .; then
        pids="$pids ${process#/proc/}"
    fi
done
[ -n "$pids" ] || exit 0
kill -TERM $pids 2>/dev/null || true
if [ "${1:-}" = --wait ]; then
    for pid in $pids; do
        while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
    done
fi
