"""The wheel in a clean environment, installed as the image installs it: it serves, replays, and
has the repository's files."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
import zipfile
from pathlib import Path

from esper_exporter import __version__
from support.command import environment
from support.installed import ROOT, install
from support.pages import value
from support.programs import end


def command(installed: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the installed command away from the checkout."""
    return subprocess.run(
        [installed / "esper-exporter", *map(str, arguments)],
        cwd=installed.parent,
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=""),
        timeout=60,
        check=False,
    )


def test_it_brings_few_libraries(installed: Path) -> None:
    """All of them run inside a training process."""
    folders = (installed.parent / "lib").glob("python*/site-packages/*.dist-info")
    found = {folder.name.partition("-")[0].lower() for folder in folders}
    brought = found - {"pip", "setuptools", "esper_exporter"}
    assert len(brought) <= 10, sorted(brought)
    assert not brought & {"bcrypt", "pyyaml", "tqdm", "torch"}, sorted(brought)


def test_it_replays(installed: Path) -> None:
    done = command(installed, "replay", "--recording", "run2b", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert value(done.stdout, "esper_tamiyo_updates_skipped_total", reason="nonfinite") == 3


def test_it_serves(installed: Path) -> None:
    process = subprocess.Popen(
        [installed / "esper-exporter", "replay", "--recording", "run2b", "--port", "0"],
        cwd=installed.parent,
        stderr=subprocess.PIPE,
        env=environment(PYTHONPATH=""),
    )
    try:
        assert process.stderr is not None
        reported = re.search(r"serving (\S+)", process.stderr.readline().decode())
        assert reported is not None
        with urllib.request.urlopen(reported[1], timeout=10) as answer:
            assert b"esper_exporter_build_info" in answer.read()
        page = reported[1].removesuffix("metrics")
        for path, has in (
            ("", b"page/app.js"),
            ("page/app.js", b"import"),
            ("page/vendor/uplot.js", b"uPlot"),
            ("page/runbooks/EsperRunFailed.md", b"EsperRunFailed"),
            ("api/v1/state", b'"runs"'),
            ("api/v1/schema/state", b"$schema"),
        ):
            with urllib.request.urlopen(page + path, timeout=10) as answer:
                assert has in answer.read()
    finally:
        end(process)


def repository_assets() -> set[str]:
    """Every file of the repository that is deployed rather than programmed."""
    listed = subprocess.run(
        [
            *("git", "ls-files", "--cached", "--others", "--exclude-standard", "--"),
            *("alerts", "deploy", "grafana/dashboards", "grafana/provisioning"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    single = ("Dockerfile", ".dockerignore", "docker-compose.yml", "constraints.txt")
    return {*listed, *single, "grafana/kustomization.yaml"}


def test_it_yields_exactly_the_files_of_the_repository(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    done = command(installed, "assets", folder)
    assert done.returncode == 0, done.stderr
    written = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    (packed,) = folder.glob("*.whl")
    del written[packed.name]
    assert set(written) == repository_assets()
    for name, path in written.items():
        assert path.read_bytes() == (ROOT / name).read_bytes(), name
    assert os.access(folder / "deploy" / "up", os.X_OK)
    # A second run changes nothing and keeps the user's edits.
    assert command(installed, "assets", folder).returncode == 0
    (folder / "docker-compose.yml").write_text("mine")
    again = command(installed, "assets", folder)
    assert again.returncode == 1
    assert "docker-compose.yml exists and differs; --force replaces it" in again.stderr
    assert (folder / "docker-compose.yml").read_text() == "mine"
    assert command(installed, "assets", folder, "--force").returncode == 0
    assert (folder / "docker-compose.yml").read_text() != "mine"


def test_the_wheel_that_it_writes_holds_what_the_built_one_holds(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    assert command(installed, "assets", tmp_path / "stack").returncode == 0
    (packed,) = (tmp_path / "stack").glob("*.whl")
    assert packed.name == wheel.name
    with zipfile.ZipFile(wheel) as built, zipfile.ZipFile(packed) as again:
        record = f"esper_exporter-{__version__}.dist-info/RECORD"
        assert set(again.namelist()) == set(built.namelist())
        for name in set(built.namelist()) - {record}:
            assert again.read(name) == built.read(name), name
        assert sorted(again.read(record).splitlines()) == sorted(built.read(record).splitlines())
    other = install(packed, tmp_path / "other")
    assert command(other, "version").stdout == f"esper-exporter {__version__}\n"


def test_the_deployment_files_name_this_version() -> None:
    for name in ("docker-compose.yml", "deploy/kubernetes/trainer.yaml"):
        reported = re.findall(
            r"esper-exporter(?:\[demo\])?[:=]=?(\d[\d.]*)", (ROOT / name).read_text()
        )
        assert set(reported) == {__version__}, name
