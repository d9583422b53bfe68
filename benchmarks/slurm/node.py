"""A cluster of one node: munge, slurmctld and slurmd in a chroot, on a loopback of their own.

Everything here runs inside private namespaces (mounts, processes, network, host name), so nothing
of the machine is mounted over and nothing outlives the trial but empty control groups.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

NODE = "esper-node"
ADDRESS = "192.0.2.1"
"""One of the addresses for documentation (RFC 5737), in the trial's network alone."""
PARTITION = "gpu-long"
USERS = {"ada": 2001, "grace": 2002}
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
SHARED = "/shared/targets"

SLURM_CONF = """\
ClusterName=trial
SlurmctldHost={node}(127.0.0.1)
SlurmUser=root
SlurmctldPort=6817
SlurmdPort=6818
AuthType=auth/munge
ProctrackType={proctrack}
TaskPlugin={task}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation=/var/spool/slurm/ctld
SlurmdSpoolDir=/var/spool/slurm/d
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
{over_memory}
KillWait=10
MinJobAge=600
Prolog=/opt/esper/slurm/prolog.sh
Epilog=/opt/esper/slurm/epilog.sh
NodeName={node} NodeAddr=127.0.0.1 CPUs=8 RealMemory=4000
PartitionName={partition} Nodes=ALL Default=YES DefMemPerCPU=400 MaxTime=60 State=UP
"""

CGROUP_CONF = """\
CgroupAutomount=no
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
"""

DEFAULTS = f"""\
ESPER_EXPORTER_FILE_SD={SHARED}
ESPER_EXPORTER_COMMAND=/opt/esper/venv/bin/esper-exporter
"""


class TrialError(Exception):
    """A part of the cluster did not do what it must; the message is for a person."""


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait for something in another process. Raises TrialError when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TrialError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.2)


class Cluster:
    """Slurm in ``root``, a base that debootstrap made. Start it once, in fresh namespaces."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.confines_memory = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
        """Whether control groups (version 1) hold a job to its memory, else Slurm's own watch."""

    # -- the machine -------------------------------------------------------------------------

    def start(self) -> None:
        """Mount what Slurm needs, write its files, start its daemons, wait for an idle node."""
        _raise_loopback()
        socket.sethostname(NODE)
        self._mount()
        self._write_files()
        for state in ("ctld", "d"):
            folder = self.root / "var/spool/slurm" / state
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.call("runuser", "-u", "munge", "--", "munged", "--force")
        self._daemons.append(self._spawn("slurmctld", "-D"))
        self._daemons.append(self._spawn("slurmd", "-D", "-N", NODE))
        wait_until(lambda: self.node_state() == "idle", "the node is idle")

    def _mount(self) -> None:
        root = self.root
        _run("mount", "--make-rprivate", "/")
        _run("mount", "--bind", root, root)
        _run("mount", "-t", "proc", "proc", root / "proc")
        _run("mount", "-t", "proc", "proc", "/proc")
        _run("mount", "--rbind", "/sys", root / "sys")
        _run("mount", "--make-rslave", root / "sys")
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", root / "dev")
        for name in DEVICES:
            (root / "dev" / name).touch()
            _run("mount", "--bind", f"/dev/{name}", root / "dev" / name)
        (root / "dev/shm").mkdir()
        (root / "dev/shm").chmod(0o1777)
        os.symlink("/proc/self/fd", root / "dev/fd")

    def _write_files(self) -> None:
        root = self.root
        for folder in ("etc/munge", "run/munge", "var/lib/munge", "var/log/munge"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        key = root / "etc/munge/munge.key"
        key.unlink(missing_ok=True)
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        (root / "run/munge").chmod(0o755)
        self.call("chown", "-R", "munge:munge", *(f"/{d}/munge" for d in ("etc", "run")))
        self.call("chown", "-R", "munge:munge", "/var/lib/munge", "/var/log/munge")
        for name, number in USERS.items():
            if self.call("id", name, check=False).returncode:
                self.call("useradd", "--create-home", "--uid", str(number), name)
        grouped = self.confines_memory
        (root / "etc/slurm").mkdir(exist_ok=True)
        (root / "etc/slurm/slurm.conf").write_text(
            SLURM_CONF.format(
                node=NODE,
                partition=PARTITION,
                proctrack="proctrack/cgroup" if grouped else "proctrack/linuxproc",
                task="task/cgroup" if grouped else "task/none",
                over_memory="" if grouped else "JobAcctGatherParams=OverMemoryKill",
            )
        )
        (root / "etc/slurm/cgroup.conf").write_text(CGROUP_CONF)
        (root / "etc/default").mkdir(exist_ok=True)
        (root / "etc/default/esper-exporter").write_text(DEFAULTS)
        hosts = f"127.0.0.1 localhost {NODE}\n"
        (root / "etc/hosts").write_text(hosts)
        _run("mount", "--bind", root / "etc/hosts", "/etc/hosts")
        targets = self.targets
        shutil.rmtree(targets, ignore_errors=True)
        targets.mkdir(parents=True)
        targets.chmod(0o1777)

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.root / "var/log" / f"{command[0]}.out").open("wb") as log:
            return subprocess.Popen(
                ["chroot", str(self.root), *command], stdout=log, stderr=subprocess.STDOUT
            )

    def stop(self) -> None:
        """End the daemons; the namespaces end all else."""
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()

    # -- what a person does ----------------------------------------------------------------

    @property
    def targets(self) -> Path:
        """The folder of target files, seen from outside of the chroot."""
        return self.root / SHARED.lstrip("/")

    def call(
        self,
        *command: str,
        user: str | None = None,
        check: bool = True,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the chroot, as root or as a user in that user's home."""
        if user is not None:
            given = [f"{name}={value}" for name, value in (variables or {}).items()]
            home = f"/home/{user}"
            as_user = ("runuser", "-u", user, "--", "env", "-C", home, f"HOME={home}")
            command = (*as_user, *given, *command)
        done = subprocess.run(
            ["chroot", str(self.root), *command],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "LC_ALL": "C.UTF-8"},
            check=False,
        )
        if check and done.returncode:
            raise TrialError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def submit(self, script: str, *options: str, user: str = "ada") -> str:
        """Submit a batch script; the job's number."""
        path = self.root / "home" / user / "job.sh"
        path.write_text(script)
        return self.call(
            "sbatch", "--parsable", *options, f"/home/{user}/job.sh", user=user
        ).stdout.strip()

    def node_state(self) -> str:
        """The node's state as sinfo shows it: idle, mix, alloc, drng, drain …"""
        return self.call("sinfo", "-h", "-o", "%t", check=False).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol show job`` says of a job."""
        text = self.call("scontrol", "-o", "show", "job", number, check=False).stdout
        return dict(pair.split("=", 1) for pair in text.split() if "=" in pair)

    def wait_for_state(self, number: str, *states: str, seconds: float = 60.0) -> None:
        """Wait until a job is in one of these states, and its epilog is done."""
        wait_until(
            lambda: self.job(number).get("JobState") in states,
            f"job {number} is {' or '.join(states)} ({self.job(number).get('JobState')})",
            seconds,
        )

    def target_files(self, user: str) -> list[Path]:
        """The target files that a user's processes wrote."""
        return [
            path for path in self.targets.glob("esper-*.json") if path.stat().st_uid == USERS[user]
        ]

    def agents(self, user: str) -> list[int]:
        """The processes of a user's node agents."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                owner = process.stat().st_uid
            except OSError:
                continue
            named = b"agent" in words and any(word.endswith(b"esper-exporter") for word in words)
            if named and owner == USERS[user]:
                found.append(int(process.name))
        return found


def _run(*command: object) -> None:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise TrialError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


def _raise_loopback() -> None:
    """What ``ip link set lo up`` does in a new network namespace, and a second address.

    Slurm looks for addresses with AI_ADDRCONFIG, which finds none where there is but 127.0.0.1.
    """
    set_address, set_flags, up = 0x8916, 0x8914, 0x1 | 0x40
    address = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(ADDRESS))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, set_flags, struct.pack("16sh14x", b"lo", up))
        fcntl.ioctl(handle, set_address, address)
