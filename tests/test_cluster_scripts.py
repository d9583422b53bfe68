"""The trials on a cluster say what they did not prove where they cannot run."""

from __future__ import annotations

import os
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


def test_without_its_packages_the_trial_of_a_store_says_what_it_did_not_prove(
    tmp_path: Path,
) -> None:
    """On a machine that is not Debian."""
    for name in ("bash", "dirname", "printf", "env"):
        (tmp_path / name).symlink_to(Path("/usr/bin") / name)
    done = subprocess.run(
        [ROOT / "scripts" / "cluster-store"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "· not run: Debian packages are missing" in done.stdout
    assert "not proven here: two replicas into one store" in done.stdout
