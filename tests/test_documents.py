"""The documents: every command, example, query, link, metric, alert and setting in them exists."""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from esper_exporter.cli import build_parser
from esper_exporter.metrics.catalogue import catalogue
from esper_exporter.settings import PREFIX, Settings
from support.installed import ROOT
from support.programs import program

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "deploy/*.md", "alerts/*.md", "grafana/*.md",
                    "alerts/runbooks/*.md")
    for path in ROOT.glob(pattern)
)  # fmt: skip
GENERATED = {"METRICS.md"}
ELSEWHERE = {"CHANGELOG.md"}
"""Names what no longer exists."""


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


ALL = named(DOCUMENTS)
CURRENT = [name for name in ALL if Path(name).name not in ELSEWHERE]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fenced(name: str, *languages: str) -> list[str]:
    """The code blocks of a document in these languages."""
    found = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", text(name), re.DOTALL | re.MULTILINE)
    return [code for language, code in found if language in languages]


def prose(name: str) -> str:
    """A document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text(name), flags=re.DOTALL | re.MULTILINE)


def recorded() -> set[str]:
    rules = [
        rule
        for path in (ROOT / "alerts" / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    return {rule["record"] for rule in rules if "record" in rule}


def alerts() -> set[str]:
    return {path.stem for path in (ROOT / "alerts" / "runbooks").glob("Esper*.md")}


def metric_names() -> set[str]:
    """Every name that a metric or one of its samples has."""
    names = set()
    for metric in catalogue().metrics:
        names.add(metric.name)
        names |= {f"{metric.name}_{part}" for part in ("bucket", "count", "sum")}
    return names


# -- commands -------------------------------------------------------------------------------------


def command_lines(name: str) -> Iterator[str]:
    """Every command line that a document shows, without comments and prompts."""
    for block in fenced(name, "sh", "bash", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip()
    for word in re.findall(r"`([^`\n]+)`", prose(name)):
        yield word.strip()


def parsed(words: list[str]) -> str | None:
    """What the command line says is wrong with these arguments, None when nothing."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            build_parser().parse_args(words)
    except SystemExit as ended:
        if ended.code:
            return said.getvalue().splitlines()[-1]
    return None


PLACEHOLDERS = {"N": "1", "P": "9108", "S": "15", "URL": "http://127.0.0.1:9090", "SHELL": "bash",
                "FAULT": "nan:op@5", "HOST:PORT": "127.0.0.1:9108"}  # fmt: skip


@pytest.mark.parametrize("name", CURRENT)
def test_every_command_is_understood(name: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", text("Makefile"), re.MULTILINE))
    wrong = []
    for line in command_lines(name):
        found = re.match(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?esper-exporter(?: (.*))?$", line)
        if found:
            try:
                words = shlex.split((found[1] or "").split(" >")[0], comments=True)
            except ValueError:
                wrong.append(line)
                continue
            if any("…" in word or "|" in word for word in words) or words[:1] == ["COMMAND"]:
                words = words[:1]
                commands = build_parser()._subparsers
                assert commands is not None
                (choices,) = (
                    action.choices
                    for action in commands._group_actions
                    if isinstance(action, argparse._SubParsersAction)
                )
                if words and words[0] not in choices and words != ["COMMAND"]:
                    wrong.append(line)
                continue
            if (
                len(words) == 1
                and "`" not in line
                and not line.startswith("esper-exporter version")
            ):
                # A command that is named, not shown with its arguments.
                if parsed([words[0], "--help"]) is not None:
                    wrong.append(f"{line}: {parsed([words[0], '--help'])}")
                continue
            problem = parsed([PLACEHOLDERS.get(word, word) for word in words])
            if problem and "the following arguments are required" not in problem:
                wrong.append(f"{line}: {problem}")
        for target in re.findall(r"^(?:[A-Z_]+=\S+ )*make ((?:[a-z][\w-]*))", line):
            if target not in targets:
                wrong.append(line)
    assert wrong == []


@pytest.mark.parametrize("name", CURRENT)
def test_every_python_example_is_python(name: str) -> None:
    for code in fenced(name, "python"):
        ast.parse(code)


@pytest.mark.parametrize("name", CURRENT)
def test_every_shell_example_is_shell(name: str) -> None:
    for code in fenced(name, "sh", "bash"):
        done = subprocess.run(
            ["bash", "-n"], input=code, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{code}\n{done.stderr}"


# -- what is named ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [one for one in CURRENT if Path(one).name not in GENERATED])
def test_every_metric_alert_and_setting_exists(name: str) -> None:
    written = text(name)
    known = metric_names() | recorded()
    prefixes = tuple(known)
    wrong = []
    for word in set(
        re.findall(r"(?<![:\w])esper_(?!exporter\b)[a-z0-9_]+(?![:\w])(?:\*|…)?", written)
    ):
        plain = word.rstrip("*…")
        whole = plain == word and not plain.endswith("_")
        if whole and plain not in known:
            wrong.append(word)
        if not whole and not any(one.startswith(plain) for one in prefixes):
            wrong.append(word)
    wrong += sorted(set(re.findall(r"\bEsper[A-Z][A-Za-z]+\b", written)) - alerts() - CLASSES)
    settings = {f"{PREFIX}{one.upper()}" for one in Settings.__dataclass_fields__}
    named_there = set(re.findall(rf"\b{PREFIX}[A-Z][A-Z_]*[A-Z]\b", written))
    wrong += sorted(named_there - settings - OTHER_VARIABLES)
    assert wrong == []


CLASSES = {"EsperCallback"}
"""Classes that are named like an alert."""

OTHER_VARIABLES = {"ESPER_EXPORTER_PACKAGE", "ESPER_EXPORTER_COMMAND"}
"""Variables of deploy/up, of docker-compose.yml and of deploy/slurm."""


def queries() -> list[tuple[str, str]]:
    """Every PromQL query of the documents with the document's name."""
    found = []
    for name in CURRENT:
        for block in fenced(name, "promql"):
            found += [(name, line) for line in block.splitlines() if line.strip()]
    table = re.findall(
        r"^\| `esper_\w+` \| .* \| `(.+)` \|$", text("docs/READING.md"), re.MULTILINE
    )
    return found + [("docs/READING.md", query) for query in table]


@pytest.mark.e2e
def test_every_query_is_promql(tmp_path: Path) -> None:
    found = queries()
    assert len(found) > 60
    rules = [
        {"record": f"documents:query:{number}", "expr": query}
        for number, (_, query) in enumerate(found)
    ]
    for number, rule in enumerate(rules):
        rule["record"] = f"documents:query{number}"
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "documents", "rules": rules}]}))
    done = subprocess.run(
        [program("promtool"), "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_sixty_metrics_are_explained_each_once_with_a_query() -> None:
    rows = re.findall(
        r"^\| `(esper_\w+)` \| (.+?) \| `(.+)` \|$", text("docs/READING.md"), re.MULTILINE
    )
    assert len(rows) >= 60
    assert len({name for name, _, _ in rows}) == len(rows)
    assert [name for name, _, query in rows if name not in query] == []


# -- links -----------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", re.sub(r"[`*]", "", heading).lower()).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("name", ALL)
def test_every_link_leads_somewhere(name: str) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        aim = (ROOT / name).parent / path if path else ROOT / name
        if not aim.exists() or (anchor and aim.suffix == ".md" and anchor not in anchors(aim)):
            wrong.append(target)
    assert wrong == []


def test_every_document_is_on_the_site() -> None:
    listed = set(re.findall(r": ([\w./-]+\.md)$", text("mkdocs.yml"), re.MULTILINE))
    assert {name for name in ALL if "runbooks/Esper" not in name} - listed == set()
    assert {name for name in listed if not (ROOT / name).exists()} == set()


@pytest.mark.slow
def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "site.py", site],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site / "index.html").exists()
    assert (site / "search" / "search_index.json").stat().st_size > 100_000
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]*\ssrc="(https?:[^"]+)|<link[^>]*rel="stylesheet"[^>]*href="(https?:[^"]+)',
            page.read_text(encoding="utf-8"),
        )
        assert loaded == [], page.name


def test_nothing_says_to_install_the_package_by_its_name() -> None:
    """It is not on any index: the owner of the name there could serve anything."""
    wrong = []
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if Path(name).suffix in {".gz", ".png", ".woff2"} or name.startswith("tests/"):
            continue
        written = (ROOT / name).read_text(encoding="utf-8", errors="replace")
        for line in written.splitlines():
            if re.search(r"(?:pip|uv|pipx)[^`]* install [^`]*['\" ]esper-exporter\b", line):
                wrong.append(f"{name}: {line.strip()}")
    assert wrong == []
