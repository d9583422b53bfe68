"""What is published: few dependencies, sound metadata, a light import, a release without tokens."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from support.installed import ROOT

MOST_DEPENDENCIES = 10
IMPORT_SECONDS = 0.1


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with wheel and source archive, as `make dist` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_twine_accepts_wheel_and_source_archive(built: Path) -> None:
    files = sorted(built.iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    done = subprocess.run(
        [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_needs_at_most_ten_packages_and_says_what_it_is(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    needed = [one for one in metadata.get_all("Requires-Dist") or [] if "extra ==" not in one]
    assert 0 < len(needed) <= MOST_DEPENDENCIES, needed
    assert [one for one in needed if re.search(r"[<~]|==", one)] == [], "upper bounds"
    assert metadata["License-Expression"] == "MIT"
    classifiers = metadata.get_all("Classifier") or []
    for version in ("3.11", "3.12", "3.13", "3.14"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert "Typing :: Typed" in classifiers


def test_the_source_archive_builds_the_same_package(built: Path, tmp_path: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path)
    (source,) = tmp_path.iterdir()
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again")],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (again,) = (tmp_path / "again").glob("*.whl")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(wheel) as other:
        assert set(one.namelist()) == set(other.namelist())


def test_importing_the_package_takes_a_tenth_of_a_second_at_most() -> None:
    """CPU time, the best of five: a busy machine makes the clock longer, not the work."""
    code = (
        "import time; began = time.process_time(); import esper_exporter;"
        "print(time.process_time() - began)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(times) <= IMPORT_SECONDS, times


def test_a_release_is_published_by_trust_with_attestations_and_an_sbom() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    publish = workflow["jobs"]["publish"]
    assert publish["permissions"]["id-token"] == "write"
    assert publish["environment"] == "release"
    steps = {step.get("uses", "").split("@")[0]: step for step in publish["steps"]}
    assert steps["pypa/gh-action-pypi-publish"]["with"] == {"attestations": True}
    assert "actions/attest-sbom" in steps
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()
    build = " ".join(step.get("run", "") for step in workflow["jobs"]["build"]["steps"])
    assert "make dist" in build
    assert "cyclonedx" in build


def test_every_dependency_says_why_it_is_there() -> None:
    written = (ROOT / "pyproject.toml").read_text()
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", written, re.DOTALL | re.MULTILINE)
    reasons = re.findall(r"#[^\n]*\n(?:\s*#[^\n]*\n)*\s*\"([\w-]+)", block)
    names = [
        re.split(r"[<>=\[]", one)[0] for one in tomllib.loads(written)["project"]["dependencies"]
    ]
    assert reasons == names
