"""The repository itself: its contents, what must not be in it, and what a wheel of it holds."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from esper_exporter import __version__
from esper_exporter.assets import assets
from esper_exporter.cli import build_parser
from esper_exporter.demo.bundled import RECORDINGS, recording
from esper_exporter.metrics.catalogue import as_markdown, catalogue
from support.command import run
from support.pages import samples
from support.recordings import telemetry

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "exporter" / "esper_exporter"

LONGEST_MODULE = 400

# Written in pieces, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of some machine": re.compile(
        r"(?<![\w.:/-])/" + r"(?:(?:work|farm|root|home/\w+)/|tmp/\w)"
    ),
    "a host of a package registry": re.compile(
        "://" + r"[a-z0-9.-]*(?:pypi|pythonhosted|registry\.npmjs|deb\.debian)[a-z.-]*", re.I
    ),
}


def repository_files() -> list[Path]:
    """Every file that belongs to the repository: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        names = [name.decode() for name in listed.stdout.split(b"\0") if name]
        return [ROOT / name for name in names if (ROOT / name).is_file()]
    # An unpacked archive: hidden folders are environments and caches.
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not re.match(r"\.(?!ci/)[^/]+/", str(path.relative_to(ROOT)))
    ]


def texts() -> list[tuple[str, str]]:
    """Name and content of every text file of the repository."""
    found = []
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            found.append((str(path.relative_to(ROOT)), content.decode()))
    return found


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if FORBIDDEN[what].search(line)
    ]
    assert found == []


def test_what_must_not_stand_in_a_file_would_be_found() -> None:
    path, host = FORBIDDEN.values()
    assert path.search("see /" + "work/main/x")
    assert path.search('"/' + 'root/.cache/"')
    assert not path.search("docs/work/x")
    assert not path.search("http://host/root/")
    assert host.search("https:" + "//files.pythonhosted.org/packages")


def test_no_module_of_the_package_is_long() -> None:
    long = {
        str(path.relative_to(PACKAGE)): count
        for path in PACKAGE.rglob("*.py")
        if (count := len(path.read_text().splitlines())) > LONGEST_MODULE
    }
    assert long == {}


def test_no_two_modules_share_a_file_name() -> None:
    """An editor, a traceback and a person name a module by its file: one name, one module."""
    places: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        places.setdefault(path.name, []).append(str(path.relative_to(PACKAGE)))
    del places["__init__.py"]
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_every_module_says_its_idea_in_its_first_line() -> None:
    silent = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if not re.match(r'r?"""\S.{10,}', path.read_text())
    ]
    assert silent == []


def test_the_list_of_metrics_is_up_to_date() -> None:
    """When this fails: ``make docs``."""
    assert (ROOT / "docs" / "METRICS.md").read_text() == as_markdown(catalogue())


def test_the_commands_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"^make ([\w-]+)", text, re.MULTILINE)) <= targets
    for line in re.findall(r"^esper-exporter (.*?)(?:  +#.*)?$", text, re.MULTILINE):
        build_parser().parse_args(line.split())
    for word in re.findall(r"`(esper-exporter [^`]*)`", re.sub(r"\n", " ", text)):
        build_parser().parse_args(word.split()[1:])


def test_the_links_of_the_documents_lead_somewhere() -> None:
    for document in (
        "README.md",
        "CHANGELOG.md",
        "docs/INTEGRATION.md",
        "docs/SCALE.md",
        "deploy/README.md",
    ):
        path = ROOT / document
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            if target.startswith("http"):
                continue
            file, _, anchor = target.partition("#")
            linked = path.parent / file if file else path
            assert linked.exists(), f"{document}: {target}"
            assert not anchor or anchor in anchors(linked), f"{document}: {target}"


def anchors(document: Path) -> set[str]:
    """What a link can name of a Markdown file: its headings."""
    return {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    }


def test_the_page_in_the_readme_is_a_page_of_the_exporter() -> None:
    text = (ROOT / "README.md").read_text()
    (excerpt,) = re.findall(r"^```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    arguments = ("--recording", "run2b", "--once", "--run-id", "night-7")
    page = run("replay", *arguments).stdout.decode()
    assert [line for line in excerpt.splitlines() if line not in page.splitlines()] == []
    assert len(samples(excerpt)) > 5


def test_the_bundled_recordings_are_those_of_the_tests() -> None:
    for name in RECORDINGS:
        with recording(name) as path:
            assert path.read_bytes() == telemetry(name).read_bytes()
    with pytest.raises(KeyError), recording("run9"):
        pass


def test_the_version_is_in_one_place(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    assert wheel.name == f"esper_exporter-{__version__}-py3-none-any.whl"
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{__version__}]" in changelog or "## [Unreleased]" in changelog


def test_every_dependency_has_a_locked_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {normal(re.split(r"[<>=\[ ]", one)[0]) for one in wanted}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    locked = {normal(line.split("==")[0]) for line in lines if "==" in line}
    assert names - locked == set()


def normal(name: str) -> str:
    """The name of a distribution as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_a_wheel_holds_the_package_its_recordings_its_assets_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("esper_exporter/demo/recordings/run1.telemetry.jsonl.gz")
        metadata = archive.read(f"esper_exporter-{__version__}.dist-info/METADATA").decode()
        commands = archive.read(f"esper_exporter-{__version__}.dist-info/entry_points.txt")
    ours = {n.removeprefix("esper_exporter/") for n in names if n.startswith("esper_exporter/")}
    expected = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours == expected | {f"assets/{name}" for name in assets()}
    assert {"py.typed", "demo/recordings/run2b.telemetry.jsonl.gz"} <= ours
    assert {n.split("/")[0] for n in names} == {
        "esper_exporter",
        f"esper_exporter-{__version__}.dist-info",
    }
    assert "Requires-Python: >=3.11" in metadata
    assert "Provides-Extra: torch" in metadata
    assert b"esper-exporter = esper_exporter.cli:main" in commands


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, esper_exporter;"
        "heavy = {'torch', 'numpy', 'prometheus_client', 'h11', 'psutil', 'tqdm', 'asyncio'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
