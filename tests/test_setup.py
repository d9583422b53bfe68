"""What `make` sets up: sizes first, the CPU build of torch without a GPU, clear failures."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.installed import ROOT


@pytest.fixture
def installer() -> dict[str, Any]:
    """The functions of scripts/install_packages.py."""
    return runpy.run_path(str(ROOT / "scripts" / "install_packages.py"))


def torch_choice(
    installer: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    gpu: bool = False,
    offered: Callable[..., bool] = lambda *_: False,
    reachable: bool = False,
) -> tuple[list[tuple[str, ...]], list[str]]:
    """What pip is called with for torch, and what is said, on a machine such as this."""
    called: list[tuple[str, ...]] = []
    said: list[str] = []
    names = installer["install_torch"].__globals__
    for name, stand_in in {
        "has_gpu": lambda: gpu,
        "offered": offered,
        "reachable": lambda _address: reachable,
        "account_wheel_folders": list,
        "pip": lambda *arguments: called.append(arguments),
        "say": said.append,
    }.items():
        monkeypatch.setitem(names, name, stand_in)
    monkeypatch.setattr(names["importlib"].util, "find_spec", lambda _name: None)
    installer["install_torch"]()
    return called, said


def test_a_machine_with_a_gpu_gets_cuda_and_prints_the_size(
    installer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    called, said = torch_choice(installer, monkeypatch, gpu=True)
    assert called == [("torch", installer["pinned"]("torch"))]
    assert "5 GB on disk" in said[0]


def test_without_a_gpu_the_cpu_build_that_pip_finds_is_taken(
    installer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    called, said = torch_choice(installer, monkeypatch, offered=lambda *_: True)
    assert called == [("torch", f"{installer['pinned']('torch')}+cpu")]
    assert "0.8 GB on disk" in said[0]


def test_else_the_cpu_build_of_torchs_own_index_is_taken(
    installer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ((_, option, index, wanted),), said = torch_choice(installer, monkeypatch, reachable=True)
    assert (option, index) == ("--extra-index-url", installer["torch_index"]())
    assert wanted.endswith("+cpu")
    assert "torch's own index" in said[0]


def test_where_no_cpu_build_can_be_had_the_size_is_said_before_the_ordinary_one_is_taken(
    installer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    called, said = torch_choice(installer, monkeypatch)
    assert called == [("torch", installer["pinned"]("torch"))]
    assert "cannot be reached" in said[0]
    assert "2.7 GB to download, 5 GB on disk" in said[1]
    assert "make demo-replay" in said[1]


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(...: Failed to"
            " establish a new connection: [Errno 111] Connection refused')\n"
            "ERROR: No matching distribution found for hatchling>=1.26",
            "pip reaches no package index; check the network and the proxy",
        ),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        (
            "ERROR: Could not find a version\nERROR: No matching distribution found for nothing",
            "No matching distribution found for nothing",
        ),
        ("ERROR: it is broken", "it is broken"),
    ],
)
def test_a_failure_of_pip_is_one_sentence(
    installer: dict[str, Any], output: str, reason: str
) -> None:
    said = installer["reason"](output.splitlines())
    assert reason in said
    assert "\n" not in said


def script(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / name, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        cwd=ROOT,
        check=False,
    )


def test_install_no_lists_what_is_missing_and_the_line_to_run() -> None:
    done = script(
        "debian-packages",
        "one-package:no-such-command:draws the graphs",
        "another:neither-this:checks them",
        "present:sh:a shell",
        INSTALL="no",
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "one-package                draws the graphs" in done.stderr
    assert "as root: apt-get install --no-install-recommends one-package another" in done.stderr
    assert "present" not in done.stderr
    assert script("debian-packages", "present:sh:a shell", INSTALL="no").returncode == 0


def fake_tools(folder: Path, apt: str) -> dict[str, str]:
    """A PATH with an apt-get that only writes down how it is called."""
    folder.mkdir()
    for name, text in {
        "apt-get": f'#!/bin/sh\necho "$@" >> {folder}/calls\n{apt}\n',
        "id": "#!/bin/sh\necho 0\n",
        "systemctl": f'#!/bin/sh\necho systemctl "$@" >> {folder}/calls\n',
        "dpkg": "#!/bin/sh\necho /lib/systemd/system/thing.service\n",
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_packages_are_named_with_reason_and_size_and_their_services_disabled(
    tmp_path: Path,
) -> None:
    apt = (
        'case "$*" in *--assume-no*) echo "Need to get 12.3 MB of archives.";'
        ' echo "After this operation, 45.6 MB of additional disk space will be used.";; esac'
    )
    policy = tmp_path / "policy-rc.d"
    bars = f"test -x {policy} && echo barred >> {tmp_path}/tools/calls"
    variables = fake_tools(tmp_path / "tools", f"{apt}\n{bars}; true") | {
        "POLICY_RC_D": str(policy)
    }
    done = script("debian-packages", "thing:no-such-command:serves things", **variables)
    assert done.returncode == 0, done.stderr
    assert (
        "(12.3 MB to download, 45.6 MB on disk); none of their services is started" in done.stdout
    )
    assert "thing                      serves things" in done.stdout
    calls = (tmp_path / "tools" / "calls").read_text()
    assert "-y --no-install-recommends install thing\nbarred\n" in calls
    assert not policy.exists()
    assert "systemctl disable --quiet thing.service" in calls


def test_a_package_that_cannot_be_installed_is_an_error_with_the_line_to_run(
    tmp_path: Path,
) -> None:
    variables = fake_tools(tmp_path / "tools", "echo 'E: no such package' >&2; exit 100")
    variables["POLICY_RC_D"] = str(tmp_path / "policy-rc.d")
    done = script("debian-packages", "thing:no-such-command:serves things", **variables)
    assert done.returncode == 1
    assert "error: could not install; as root: apt-get install" in done.stderr


def test_an_environment_that_is_fresh_is_left_alone_and_a_moved_one_is_not(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/bin/true")
    stamp = venv / ".installed-runtime"
    stamp.write_text(f"{ROOT}\n")
    done = script("install", str(venv), "runtime", INSTALL="no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    stamp.write_text("/elsewhere\n")
    done = script("install", str(venv), "runtime", INSTALL="no")
    assert done.returncode == 1
    assert "missing: the Python environment" in done.stderr


def test_a_python_that_is_named_but_not_used_is_said(tmp_path: Path) -> None:
    done = script("install", ".venv", "dev", "/bin/true", INSTALL="no")
    assert "PYTHON=/bin/true is not used: .venv was made with" in done.stdout


@pytest.mark.parametrize("arguments", [("demo",), ("replay", "--recording", "run1")])
def test_arguments_are_checked_by_a_python_without_any_package(arguments: tuple[str, ...]) -> None:
    """`make demo` checks them before it installs anything."""
    done = subprocess.run(
        [sys.executable, "-S", ROOT / "scripts" / "demo.py", "--check", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "exporter")},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_make_check_chooses_the_marks_whose_files_are_left_unread() -> None:
    chosen = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["FAST"]
    assert f"-m '{chosen}'" in (ROOT / "Makefile").read_text()
