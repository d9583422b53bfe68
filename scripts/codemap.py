"""Generate the code map in CONTRIBUTING.md: every module of the package by its first line."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "exporter" / "esper_exporter"
BEGIN, END = "<!-- code map -->\n", "<!-- end of code map -->\n"


def first_line(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return (
        docstring.split("\n\n")[0].split(". ")[0].replace("\n", " ").rstrip(".").replace("|", "\\|")
    )


def code_map(package: Path = PACKAGE) -> str:
    """The tables, one for each room, in the order of the folders."""
    rooms: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        rooms.setdefault(path.parent.relative_to(package).as_posix(), []).append(path)
    parts = []
    for room, paths in rooms.items():
        about = next((p for p in paths if p.name == "__init__.py"), None)
        says = f": {first_line(about)}" if about is not None and room != "." else ""
        parts.append(f"### {'the package itself' if room == '.' else room + '/'}\n")
        if says:
            parts.append(f"{says[2:]}.\n")
        rows = [f"| `{p.name}` | {first_line(p)} |" for p in paths if p is not about]
        if rows:
            parts.append("\n".join(["| module | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def with_map(text: str) -> str:
    """CONTRIBUTING.md with the map of today."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{code_map()}\n{END}{after}"


if __name__ == "__main__":
    document = ROOT / "CONTRIBUTING.md"
    document.write_text(with_map(document.read_text(encoding="utf-8")), encoding="utf-8")
    print("· CONTRIBUTING.md")
    sys.exit(0)
