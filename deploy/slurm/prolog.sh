#!/usr/bin/env bash
# Starts the node agent of a job's user, unless there is one already; prints the variables of the job.
# As Slurm's Prolog, which runs once a node and as root:    Prolog=/path/to/prolog.sh in slurm.conf
# In a batch script of one node, as the user:               eval "$(deploy/slurm/prolog.sh)"
# Not as TaskProlog: eight tasks would start eight.
#
# /etc/default/esper-exporter (another: ESPER_EXPORTER_DEFAULTS) sets what Slurm's Prolog has no environment for:
#   ESPER_EXPORTER_FILE_SD   a folder that Prometheus reads target files from; the agent then takes any free port
#   ESPER_AGENT_PORT         a fixed port; without a folder it is 9108, and one user's agent fits on a node
#   ESPER_EXPORTER_COMMAND   the path of esper-exporter, where PATH does not lead to it
#   ESPER_AGENT_LINGER       seconds that the agent stays at most for Prometheus to fetch how a job ended
set -eu
defaults=${ESPER_EXPORTER_DEFAULTS:-/etc/default/esper-exporter}
if [ -r "$defaults" ]; then
    set -a
    . "$defaults"
    set +a
fi
if [ "$(id -u)" -eq 0 ] && [ -n "${SLURM_JOB_USER:-}" ] && [ "$SLURM_JOB_USER" != root ]; then
    exec runuser -u "$SLURM_JOB_USER" -- "$0"
fi
share=${ESPER_EXPORTER_SHARE:-/dev/shm/esper-exporter-$(id -u)}
port=9108
[ -z "${ESPER_EXPORTER_FILE_SD:-}" ] || port=0
mkdir -p -m 0700 "$share" "$share/jobs"
# The epilog of another job of this user leaves the agent to this one.
[ -z "${SLURM_JOB_ID:-}" ] || : >"$share/jobs/$SLURM_JOB_ID"
# --wait: the agent of the job before may still serve its end; this one then follows it.
setsid "${ESPER_EXPORTER_COMMAND:-esper-exporter}" agent "$share" --host 0.0.0.0 --port "${ESPER_AGENT_PORT:-$port}" \
    --wait --linger "${ESPER_AGENT_LINGER:-60}" \
    ${ESPER_EXPORTER_FILE_SD:+--file-sd "$ESPER_EXPORTER_FILE_SD"} \
    >>"$share/agent.log" 2>&1 </dev/null &
# The job begins when the agent has the share or is next in turn; else esper-exporter run of a rank would serve it.
for _ in $(seq 300); do
    if ! kill -0 $! 2>/dev/null || find "/proc/$!/fd" -lname "$share/agent.lock" 2>/dev/null | grep -q .; then break; fi
    sleep 0.1
done
echo "export ESPER_EXPORTER_SHARE=$share"
