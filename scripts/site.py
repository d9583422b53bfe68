"""Build the documentation as a site: copy the repository's pages as they lie, then run mkdocs.

usage: site.py [FOLDER]      build/site unless said otherwise; fails on a link that leads nowhere
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "Dockerfile",
    "Makefile",
    "docker-compose.yml",
    "pyproject.toml",
    "alerts",
    "deploy",
    "docs",
    "examples",
    "grafana/README.md",
    "grafana/dashboards",
    "tests/recordings/README.md",
    "exporter/esper_exporter/health.py",
)


def copy(folder: Path) -> None:
    """Copy everything that a page shows or links to, in the repository's layout."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in PAGES:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target)


def build(site: Path) -> int:
    """Build the site; the exit code of mkdocs."""
    copy(ROOT / "build" / "site-source")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT,
        # A line about another version of mkdocs is none about this site.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    ).returncode


if __name__ == "__main__":
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").absolute()
    code = build(site)
    if not code:
        print(f"· {site}/index.html")
    sys.exit(code)
