"""`esper-exporter run`: the training's output, signals and end pass through, and the page says why
it ended."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from esper_exporter.agent.node_agent import AgentSettings, NodeAgent
from esper_exporter.agent.share_claim import lock_shares, release
from esper_exporter.agent.share_directory import AGENT_CLAIM
from esper_exporter.serve.negotiation import negotiate
from support.command import environment
from support.control_group import MemoryGroup
from support.pages import value, values
from support.programs import wait_until

TRAINER = Path(__file__).with_name("trainer.py")


class Run:
    """A training under the wrapper, served on a free port."""

    def __init__(
        self,
        share: Path,
        command: list[str],
        *options: str,
        linger: str = "90",
        within: tuple[str, ...] = (),
        **variables: str,
    ) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        environment = {
            **os.environ,
            "ESPER_EXPORTER_PORT": str(self.port),
            "ESPER_EXPORTER_LINGER": linger,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **variables,
        }
        self.process = subprocess.Popen(
            [
                *(*within, sys.executable, "-m", "esper_exporter", "run", "--agent", str(share)),
                *(*options, "--", *command),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def page(self) -> str:
        """The page as a server fetches it."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/metrics",
            headers={
                "User-Agent": "Prometheus/2.53",
                "X-Prometheus-Scrape-Timeout-Seconds": "10",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def last_page(self, ranks: int = 1) -> str:
        """The first page that says how the processes of all ranks ended."""
        found: list[str] = []

        def there() -> bool:
            found[:] = [self.page()]
            return len(values(found[0], "esper_run_exit_code")) == ranks

        wait_until(there, f"{ranks} exit codes are on the page", seconds=180, every=0.2)
        return found[0]

    def ended(self) -> tuple[int, str]:
        """The exit status as Popen has it, and standard output."""
        out, self.errors = self.process.communicate(timeout=240)
        return self.process.returncode, out


@pytest.fixture
def share(tmp_path: Path) -> Path:
    return tmp_path / "share"


@pytest.fixture(autouse=True)
def _no_cores() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


def _train(share: Path, *steps: str, rank: str = "0") -> list[str]:
    return [sys.executable, str(TRAINER), str(share), "night-7", rank, *steps]


@pytest.mark.parametrize(
    ("steps", "status", "reason", "number"),
    [
        (["sigkill"], -signal.SIGKILL, "killed", 9),
        (["sigsegv"], -signal.SIGSEGV, "segfault", 11),
        (["sigabrt"], -signal.SIGABRT, "abort", 6),
        (["sigusr1"], -signal.SIGUSR1, "signal", 10),
        (["exit", "3"], 3, "exit", 0),
        (["raise"], 1, "nonfinite", 0),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_the_page_says_what_ended_the_training(
    share: Path, steps: list[str], status: int, reason: str, number: int
) -> None:
    run = Run(share, _train(share, "nan", "op", *steps))
    page = run.last_page()
    assert value(page, "esper_run_failed", reason=reason) == 1.0
    assert value(page, "esper_tamiyo_head_nonfinite_latched", head="op", kind="nan") == 1.0
    assert value(page, "esper_run_exit_signal", run_id="night-7") == number
    assert value(page, "esper_run_exit_code") == (128 + number if number else status)
    for _ in range(2):
        run.page()
    assert run.ended()[0] == status
    assert not list(share.glob("[0-9]*"))


def test_a_death_while_the_agent_is_away_is_on_the_page_of_the_next_one(
    share: Path, tmp_path: Path
) -> None:
    agent = NodeAgent(_agent_settings(share))
    agent.start()
    claims = lock_shares([share], AGENT_CLAIM)  # as the command does
    # What the wrapper prints to a file says that it has found the agent.
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "esper_exporter", "run", "--agent", str(share)),
                *("--port", "0", "--", *_train(share, "update", "7", "ready", "wait", "sigkill")),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(ESPER_EXPORTER_LINGER="0.5"),
        )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    wait_until(
        lambda: "the run's page is" in (tmp_path / "errors").read_text(),
        "the wrapper finds the agent",
        seconds=120,
    )
    agent.close()
    release(claims)
    process.communicate("go\n", timeout=120)
    agent = NodeAgent(_agent_settings(share))
    agent.start()
    try:
        page = agent.render(negotiate(None), False).decode()
        assert value(page, "esper_run_failed", run_id="night-7", reason="killed") == 1.0
    finally:
        agent.close()


def _agent_settings(share: Path) -> AgentSettings:
    return AgentSettings(shares=[share], port=0, gpu_vitals="off", host_vitals="off")


def test_a_good_end_is_fast_and_silent_without_scrapers(share: Path) -> None:
    run = Run(share, [sys.executable, "-c", "print('hello')"])
    assert run.ended() == (0, "hello\n")
    assert run.errors == ""


def test_a_wrapper_that_serves_registers_its_page(share: Path, tmp_path: Path) -> None:
    targets = tmp_path / "targets"
    targets.mkdir()
    command = _train(share, "ready", "wait", "end")
    run = Run(share, command, linger="0", ESPER_EXPORTER_FILE_SD=str(targets))
    wait_until(lambda: list(targets.glob("esper-*.json")), "a target file", seconds=120)
    (file,) = targets.glob("esper-*.json")
    assert f":{run.port}" in file.read_text()
    run.process.stdin.write("\n")
    run.process.stdin.flush()
    assert run.ended()[0] == 0
    assert list(targets.iterdir()) == []


def test_output_input_arguments_and_exit_code_pass_through(share: Path) -> None:
    program = "import sys; print(sys.argv[1:], sys.stdin.readline().strip()); sys.exit(7)"
    run = Run(share, [sys.executable, "-c", program, "--agent", "a b", "--"], linger="0")
    assert run.process.stdin is not None
    run.process.stdin.write("typed\n")
    run.process.stdin.flush()
    assert run.ended() == (7, "['--agent', 'a b', '--'] typed\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_signals_reach_the_training_once(share: Path, number: signal.Signals) -> None:
    program = (
        "import signal, sys, time\n"
        "got = []\n"
        "for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):\n"
        "    signal.signal(n, lambda n, _: got.append(n))\n"
        "print('ready', flush=True)\n"
        "while not got: signal.pause()\n"
        "time.sleep(0.3)\n"
        "print([int(n) for n in got])\n"
    )
    run = Run(share, [sys.executable, "-c", program], linger="0")
    assert run.process.stdout is not None and run.process.stdout.readline() == "ready\n"
    run.process.send_signal(number)
    assert run.ended() == (0, f"[{int(number)}]\n")


def test_ctrl_c_at_a_terminal_reaches_the_training_once(share: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "got = []\n"
        "signal.signal(signal.SIGINT, lambda n, _: got.append(n))\n"
        "print('ready', flush=True)\n"
        "while not got: signal.pause()\n"
        "time.sleep(1.5)\n"
        "print('times', len(got), flush=True)\n"
        "sys.exit(3)\n"
    )
    command = ["run", "--port", "0", "--agent", str(share), "--", sys.executable, "-c", program]
    terminal = (
        "import os, pty, sys\n"
        "pid, screen = pty.fork()\n"
        "ours = [sys.executable, '-m', 'esper_exporter', *sys.argv[1:]]\n"
        "if not pid: os.execv(sys.executable, ours)\n"
        "shown = b''\n"
        "while b'ready' not in shown: shown += os.read(screen, 1000)\n"
        "os.write(screen, b'\\x03')\n"
        "try:\n"
        "    while data := os.read(screen, 1000): shown += data\n"
        "except OSError: pass  # the terminal's other side is closed\n"
        "print(shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", terminal, *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
    )
    assert "times 1\n" in done.stdout
    assert done.stdout.split()[-1] == "3"


def test_a_command_that_is_not_there_is_one_sentence(share: Path) -> None:
    run = Run(share, ["no-such-program"])
    assert run.ended()[0] == 127
    assert run.errors.splitlines() == ["esper-exporter: no-such-program: No such file or directory"]


def test_a_shell_that_reports_a_signal_names_the_trainings_reason(share: Path) -> None:
    command = " ".join([*_train(share, "update", "1", "ready", "sigkill"), "; exit $?"])
    run = Run(share, ["sh", "-c", command])
    assert value(run.last_page(), "esper_run_failed", reason="killed") == 1.0
    for _ in range(2):
        run.page()
    assert run.ended()[0] == 137


def test_all_ranks_of_nproc_are_on_one_page_and_one_failure_ends_all(share: Path) -> None:
    program = (
        "import os, runpy, sys\n"
        f"sys.argv = ['t', {str(share)!r}, 'night-7', os.environ['RANK'], 'update', '1', 'ready']\n"
        "sys.argv += ['wait', 'sigkill'] if os.environ['RANK'] == '1' else ['pause']\n"
        f"runpy.run_path({str(TRAINER)!r}, run_name='__main__')\n"
    )
    run = Run(share, [sys.executable, "-c", program], "--nproc", "2")
    wait_until(
        lambda: len(values(run.page(), "esper_tamiyo_updates_total")) == 2,
        "both ranks are on the page",
        seconds=180,
    )
    page = run.page()
    assert {value(page, "esper_tamiyo_updates_total", rank=rank) for rank in "01"} == {1.0}
    assert run.process.stdin is not None
    run.process.stdin.write("go\n")
    run.process.stdin.flush()
    page = run.last_page(ranks=2)
    assert value(page, "esper_run_failed", rank="1", reason="killed") == 1.0
    assert value(page, "esper_run_failed", rank="0", reason="signal") == 1.0
    for _ in range(2):
        run.page()
    assert run.ended()[0] == -signal.SIGKILL


def test_a_rank_that_ignores_the_end_is_killed_and_raises_no_alarm(share: Path) -> None:
    program = (
        "import os, runpy, signal, sys\n"
        f"sys.argv = ['t', {str(share)!r}, 'night-7', os.environ['RANK'], 'update', '1', 'ready']\n"
        "if os.environ['RANK'] == '1':\n"
        "    sys.argv += ['wait', 'sigkill']\n"
        "else:\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "    sys.argv += ['pause']\n"
        f"runpy.run_path({str(TRAINER)!r}, run_name='__main__')\n"
    )
    run = Run(share, [sys.executable, "-c", program], "--nproc", "2", "--kill-after", "0.1")
    assert run.process.stdout is not None and run.process.stdin is not None
    assert [run.process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    run.process.stdin.write("go\n")
    run.process.stdin.flush()
    page = run.last_page(ranks=2)
    assert value(page, "esper_run_failed", rank="1", reason="killed") == 1.0
    assert value(page, "esper_run_failed", rank="0", reason="signal") == 1.0
    assert value(page, "esper_run_exit_signal", rank="0") == 9.0
    for _ in range(2):
        run.page()
    assert run.ended()[0] == -signal.SIGKILL


def test_the_kernels_out_of_memory_is_proven(share: Path) -> None:
    try:
        group = MemoryGroup()
    except OSError as problem:
        pytest.skip(f"not proven here: this process may not make a control group: {problem}")
    try:
        wrapped = Run(share, _train(share, "nan", "op", "oom"), within=group.within())
        page = wrapped.last_page()
        assert value(page, "esper_run_failed", reason="oom") == 1.0
        assert value(page, "esper_run_exit_code") == 137.0
        for _ in range(2):
            wrapped.page()
        assert wrapped.ended()[0] == -signal.SIGKILL
    finally:
        group.remove()
