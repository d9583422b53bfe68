"""What ``esper-exporter run`` adds to a command, and whether the command is as without it.

usage: python -m benchmarks.run_wrapper [--pairs N] [--races N]

First ``python -c pass`` is timed with and without the wrapper in turn, without an agent and beside
one: the wrapper may add 0.2 s. Then commands that read, write, exit and die in many ways run with
and without it: status, standard output and standard error must be equal. At last an agent and a
training under the wrapper start at the same moment, as from Slurm's prolog: the agent must serve
in the end, whichever was first, and say what killed the training. Exits with 1 if anything was
wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

from benchmarks.death_alerts import agent, answers
from benchmarks.deaths import TRAINER

# benchmarks.deaths puts the tests on the path.
from support.ports import free_port
from support.programs import end

LIMIT_SECONDS = 0.2
PASS = [sys.executable, "-c", "pass"]
KILL = "import os, signal; os.kill(os.getpid(), signal.{})"
COPY = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"
COMMANDS: dict[str, list[str]] = {
    **{f"exit {code}": ["sh", "-c", f"exit {code}"] for code in (0, 1, 3, 42, 126, 255)},
    **{
        name: [sys.executable, "-c", KILL.format(name)]
        for name in ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGTERM", "SIGUSR1", "SIGPIPE")
    },
    "an exception": [sys.executable, "-c", "raise ValueError('no')"],
    "16 MiB through": [sys.executable, "-c", COPY],
    "both streams": ["sh", "-c", "echo out; echo err >&2; printf 'no line end'"],
    "arguments": [sys.executable, "-c", "import sys; print(sys.argv)", "--agent", "a b", "", "--"],
}
SILENT = "esper-exporter: nothing was attached"
"""What the wrapper says of a program without an exporter, on standard error."""


def wrapped(command: list[str], share: Path) -> list[str]:
    """A command under the wrapper."""
    script = Path(sys.executable).with_name("esper-exporter")
    head = [str(script)] if script.exists() else [sys.executable, "-m", "esper_exporter"]
    return [*head, "run", "--port", "0", "--agent", str(share), "--", *command]


def seconds(command: list[str]) -> tuple[float, float]:
    """How long a command takes, and its CPU time with that of its children."""
    begun = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return time.perf_counter() - begun, cpu


def overhead(share: Path, pairs: int) -> tuple[float, float]:
    """The medians of what the wrapper adds: seconds, and seconds of CPU time."""
    wrapper = wrapped(PASS, share)
    seconds(wrapper)
    found = [(seconds(wrapper), seconds(PASS)) for _ in range(pairs)]
    return (
        median(with_it[0] - without[0] for with_it, without in found),
        median(with_it[1] - without[1] for with_it, without in found),
    )


def result(command: list[str]) -> tuple[int, bytes, list[bytes]]:
    """A command's status and what it wrote; input is 16 MiB."""
    done = subprocess.run(command, input=bytes(range(256)) * 65536, capture_output=True)
    lines = [line for line in done.stderr.splitlines() if not line.startswith(SILENT.encode())]
    return done.returncode, done.stdout, lines


def differing(share: Path) -> list[str]:
    """The commands that the wrapper changes."""
    return [
        name
        for name, command in COMMANDS.items()
        if result(command) != result(wrapped(command, share))
    ]


def race(share: Path, offset: float) -> str:
    """An agent and a training start at once, one of them ``offset`` seconds later; what was wrong,
    empty if nothing was."""
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    serve = [sys.executable, "-m", "esper_exporter", "agent", str(share), "--no-vitals"]
    steps = ("update", "1", "ready", "wait", "nan", "op", "sigkill")
    train = [sys.executable, str(TRAINER), str(share), "night-7", "0", *steps]
    started: list[subprocess.Popen[bytes]] = []

    def start_agent() -> None:
        started.append(
            subprocess.Popen(
                [*serve, "--port", str(port)], stderr=subprocess.DEVNULL, env=environment
            )
        )

    try:
        if offset < 0:
            start_agent()
        time.sleep(max(0.0, -offset))
        run = subprocess.Popen(
            wrapped(train, share),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        time.sleep(max(0.0, offset))
        if offset >= 0:
            start_agent()
        assert run.stdout is not None
        run.stdout.readline()
        until = time.monotonic() + 60
        while not answers(port) and time.monotonic() < until:
            time.sleep(0.1)
        run.communicate(b"\n")
        if run.returncode != -signal.SIGKILL:
            return f"the status is {run.returncode}"
        while time.monotonic() < until:
            page = fetch(port)
            if 'esper_run_failed{run_id="night-7"' in page and "esper_run_exit_signal{" in page:
                break
            time.sleep(0.2)
        killed = [line for line in page.splitlines() if 'reason="killed"} 1.0' in line]
        lit = [line for line in page.splitlines() if 'head="op",kind="nan"} 1.0' in line]
        return "" if killed and lit else "the page has not the reason or not the latch"
    finally:
        for process in started:
            end(process)


def fetch(port: int) -> str:
    """A page, empty while there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.run_wrapper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--races", type=int, default=20)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="esper-") as folder:
        # Compiled once, as an installed package is.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        shares = [Path(folder) / name for name in ("alone", "agent")]
        for share in shares:
            share.mkdir(mode=0o700)
        for share in shares:
            if share.name == "agent":
                with agent(share):
                    added, cpu = overhead(share, options.pairs)
            else:
                added, cpu = overhead(share, options.pairs)
            wrong += added > LIMIT_SECONDS
            print(
                f"run adds {1000 * added:.0f} ms, {1000 * cpu:.0f} ms of CPU time ({share.name}),"
                f" {options.pairs} pairs"
            )
        changed = differing(shares[0])
        wrong += len(changed)
        print(f"{len(COMMANDS)} commands, {len(changed)} differ under run {', '.join(changed)}")
        chance = random.Random(0)
        bad = []
        for number in range(options.races):
            share = Path(folder) / f"race-{number}"
            share.mkdir(mode=0o700)
            bad += [problem for problem in [race(share, chance.uniform(-1.0, 1.0))] if problem]
        wrong += len(bad)
        print(f"{options.races} races with an agent, {len(bad)} wrong {'; '.join(bad)}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
