"""esper-exporter run: the program behaves as without it, and esper's hub has an exporter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from support.command import COMMAND, environment

PYTHON = sys.executable

HUB = """
class NissaHub:
    def __init__(self):
        self.backends = []

    def add_backend(self, backend):
        self.backends.append(backend)
        backend.start()

    def close(self):
        for backend in self.backends:
            backend.close()

_hub = NissaHub()

def get_hub():
    return _hub
"""


def bare(*command: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, capture_output=True, env=environment(), timeout=60, check=False, **more
    )


def wrapped(
    *command: str, variables: dict[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, "run", "--port", "0", "--", *command],
        capture_output=True,
        env=environment(**(variables or {})),
        timeout=60,
        check=False,
        **more,
    )


@pytest.mark.parametrize(
    "code",
    [
        "pass",
        "raise SystemExit(3)",
        "raise SystemExit(255)",
        "import sys; print(sys.argv[1:]); print('err', file=sys.stderr)",
        "def f():\n    raise ValueError('a traceback')\nf()",
        "import sys; sys.stdout.write(sys.stdin.read().upper())",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os; os.abort()",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import os, sys; sys.stdout.flush(); os._exit(7)",
    ],
)
def test_exit_status_streams_and_arguments_are_the_program_s(code: str) -> None:
    command = (PYTHON, "-c", code, "--epochs", "3", "two words", "--", "-x")
    plain, run = bare(*command, input=b"abc\n"), wrapped(*command, input=b"abc\n")
    assert run.returncode == plain.returncode
    assert run.stdout == plain.stdout
    assert run.stderr == plain.stderr


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    missing = wrapped("no-such-program")
    assert (missing.returncode, missing.stdout) == (127, b"")
    assert missing.stderr == b"esper-exporter: no-such-program: No such file or directory\n"
    text = tmp_path / "text"
    text.write_text("no program")
    assert wrapped(str(text)).returncode == 126


def test_without_a_command_it_says_so() -> None:
    done = subprocess.run([*COMMAND, "run"], capture_output=True, env=environment(), check=False)
    assert done.returncode == 1 and b"no command" in done.stderr


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT]
)
def test_signals_reach_the_program(number: signal.Signals) -> None:
    code = f"""
import os, signal
def seen(n, _):
    os.write(1, b"seen %d\\n" % n)
    raise SystemExit(42)
signal.signal({int(number)}, seen)
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""
    with subprocess.Popen(
        [*COMMAND, "run", "--", PYTHON, "-c", code], stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"seen {int(number)}\n".encode()
        assert process.wait(30) == 42


def test_a_signal_that_ends_the_program_ends_the_wrapper() -> None:
    code = "print('ready', flush=True); import time; time.sleep(60)"
    with subprocess.Popen(
        [*COMMAND, "run", "--", PYTHON, "-c", code], stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder with a package that has the hub's module, and a program that uses it."""
    hub = tmp_path / "esper" / "nissa"
    hub.mkdir(parents=True)
    for folder in (hub.parent, hub):
        (folder / "__init__.py").write_text("")
    (hub / "output.py").write_text(HUB)
    (tmp_path / "train.py").write_text(
        textwrap.dedent(
            """
            import sys
            from esper.nissa.output import get_hub
            for backend in get_hub().backends:
                exporter = backend._exporter
                page = exporter.render().decode()
                print(type(backend).__name__, exporter.settings.run_id, len(page) > 1000)
            print("arguments", sys.argv[1:])
            get_hub().close()
            raise SystemExit(5)
            """
        )
    )
    return tmp_path


OFF = {"ESPER_EXPORTER_LINGER": "0", "ESPER_EXPORTER_STATE_DIR": "off"}


def test_it_attaches_when_the_hub_is_imported(program: Path) -> None:
    program_line = (PYTHON, "train.py", "--rounds", "2")
    done = subprocess.run(
        [*COMMAND, "run", "--run-id", "night-7", "--port", "0", "--", *program_line],
        capture_output=True,
        cwd=program,
        env=environment(**OFF),
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == [
        b"EsperExporterBackend night-7 True",
        b"arguments ['--rounds', '2']",
    ]
    assert done.returncode == 5, done.stderr.decode()


def test_a_program_s_own_sitecustomize_still_runs(program: Path) -> None:
    own = program / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("print('own sitecustomize')\n")
    path = os.pathsep.join([str(own), environment()["PYTHONPATH"]])
    done = wrapped(
        PYTHON,
        "-c",
        "import sitecustomize; print(sitecustomize.__file__)",
        variables={"PYTHONPATH": path},
    )
    shown = done.stdout.decode().splitlines()
    assert str(own / "sitecustomize.py") in shown
    assert shown.count("own sitecustomize") == 2, "the wrapper's, a Python program too, and ours"


def test_processes_of_multiprocessing_are_left_alone(program: Path) -> None:
    (program / "spawning.py").write_text(
        textwrap.dedent(
            """
            import multiprocessing
            from esper.nissa.output import get_hub

            def work(_):
                return len(get_hub().backends)

            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(len(get_hub().backends), pool.map(work, [0]))
                get_hub().close()
            """
        )
    )
    done = wrapped(PYTHON, "spawning.py", cwd=program, variables=OFF)
    assert done.stdout == b"1 [0]\n", done.stderr.decode()


def test_without_torch_the_hub_still_has_an_exporter(program: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from esper.nissa.output import get_hub\n"
        "print(len(get_hub().backends)); get_hub().close()"
    )
    done = wrapped(PYTHON, "-c", code, cwd=program, variables=OFF)
    assert done.stdout == b"1\n", done.stderr.decode()
    assert b"torch is not installed: the trainer's events are exported, not measured" in done.stderr
