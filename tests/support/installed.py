"""The package as users get it: a wheel, in a separate environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build_context(folder: Path) -> Path:
    """What ``docker build`` sees of the repository: the files that .dockerignore lets through."""
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in patterns, ".dockerignore starts from nothing"
    let_in = [line.removeprefix("!") for line in patterns if line.startswith("!")]
    for name in (path.name for pattern in let_in for path in ROOT.glob(pattern)):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a source tree, and return its path."""
    _pip(
        sys.executable,
        *("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)),
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel and what it needs into a new environment; its folder of commands."""
    venv.create(folder, with_pip=True)
    constraints = str(ROOT / "constraints.txt")
    _pip(str(folder / "bin" / "python"), "install", "--constraint", constraints, str(wheel))
    return folder / "bin"


def _pip(python: str, *arguments: str) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"pip {arguments[0]}: {done.stderr[-2000:]}", pytrace=False)
