"""The trials on a cluster say what they did not prove where they cannot run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.installed import ROOT


@pytest.mark.parametrize("script", ["scripts/cluster-slurm", "deploy/image"])
def test_without_root_a_trial_says_what_it_did_not_prove(script: str, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    done = subprocess.run(
        [ROOT / script],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "· not run: it needs root" in done.stdout
    assert "not proven here: " in done.stdout


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that is not Debian and has none of the programs."""
    for name in ("bash", "dirname", "printf", "env"):
        (tmp_path / name).symlink_to(Path("/usr/bin") / name)
    return {"PATH": str(tmp_path)}


def test_without_its_packages_the_trial_of_a_store_says_what_it_did_not_prove(
    bare: dict[str, str],
) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "cluster-store"],
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "· not run: Debian packages are missing" in done.stdout
    assert "not proven here: two replicas into one store" in done.stdout


def when_installed(package: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A trial that needs a package and prints a word."""
    return subprocess.run(
        [ROOT / "scripts" / "when-installed", "faults", package, "--", "printf", "%s!", "tried it"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_its_packages_any_other_trial_says_what_it_did_not_prove(
    bare: dict[str, str],
) -> None:
    done = when_installed("prometheus:prometheus", bare)
    assert (done.returncode, "tried" in done.stdout) == (0, False), done.stderr
    assert "· not run: Debian packages are missing\n  not proven here: faults\n" in done.stdout


def test_with_its_packages_a_trial_is_run_with_its_arguments(bare: dict[str, str]) -> None:
    assert when_installed("bash:bash", bare).stdout == "tried it!"


def test_every_trial_of_all_tests_can_say_what_it_did_not_prove() -> None:
    """Either its script or the way the Makefile calls it."""
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("\ntest-all: test\n")[2].partition("\n\n")[0]
    for line in recipe.splitlines():
        called = re.search(r"\$\(MAKE\) (\S+)|(\S+)(?: \S+)?$", line.strip().lstrip("@"))
        assert called is not None
        if target := called[1]:
            body = makefile.partition(f"\n{target}:\n")[2].partition("\n\n")[0]
            assert "scripts/when-installed" in body, target
        else:
            path = re.search(r"(?:scripts|deploy)/[\w.-]+", line)
            assert path is not None, line
            assert "not proven" in (ROOT / path[0]).read_text(), path[0]
