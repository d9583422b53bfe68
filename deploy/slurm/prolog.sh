#!/usr/bin/env bash
# Starts the node agent of this user, unless there is one already. For a batch script: eval "$(deploy/slurm/prolog.sh)".
# Or for Slurm's Prolog, which runs once a node, as the job's user. Not TaskProlog: eight tasks would start eight.
# ESPER_EXPORTER_FILE_SD: a folder that Prometheus reads target files from.
set -eu
share=${ESPER_EXPORTER_SHARE:-/dev/shm/esper-exporter-$(id -u)}
mkdir -p -m 0700 "$share"
setsid -f esper-exporter agent "$share" --host 0.0.0.0 --port "${ESPER_AGENT_PORT:-9108}" \
    ${ESPER_EXPORTER_FILE_SD:+--file-sd "$ESPER_EXPORTER_FILE_SD"} \
    >"$share/agent.log" 2>&1 </dev/null || true
echo "export ESPER_EXPORTER_SHARE=$share"
