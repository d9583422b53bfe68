"""Imports of the package: they run from right to left through the rooms, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "exporter" / "esper_exporter"
NAME = PACKAGE.name

TOOLS = (
    *("assets", "atomic_file", "daemon_thread", "fork_handlers", "health", "log_once"),
    *("settings", "wheel"),
)
"""Modules beside the rooms that every room may use."""

ROOMS = ("contract", "state", "probes", "metrics", "serve", "shutdown", "journal", "agent")
"""The walk of an event: each room knows only itself and those left of it. The journal keeps what
came in, and the agent records how a trainer ended there."""


FACES = {"journal": {"sql"}}
"""Modules beside the rooms that are a room's own public names."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its full name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = [NAME, *path.relative_to(PACKAGE).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = ast.parse(path.read_text())
    return found


def imports(tree: ast.AST, *, also_late: bool) -> Iterator[str]:
    """The package's modules that a module imports, without those for annotations alone.

    With ``also_late`` those within functions as well.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not also_late:
            continue
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module in modules():
            for each in node.names:
                inner = f"{node.module}.{each.name}"
                yield inner if inner in modules() else node.module
        else:
            yield from imports(node, also_late=also_late)


def room_of(module: str) -> str:
    """The folder or module directly below the package; empty for the package itself."""
    return module.removeprefix(NAME).removeprefix(".").partition(".")[0]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Each circle of imports that a walk from every module comes upon, as the modules on it."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                walk(target, [*path, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: set(imports(tree, also_late=False)) for name, tree in modules().items()}
    assert sum(map(len, graph.values())) > 500
    assert circles(graph) == []


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_is_left_of_it(room: str) -> None:
    """Late imports count as well: they are for what is heavy, not for what runs back up."""
    known = {"", *TOOLS, *FACES.get(room, ()), *ROOMS[: ROOMS.index(room) + 1]}
    wrong = [
        f"{name} imports {target}"
        for name, tree in modules().items()
        if room_of(name) == room
        for target in imports(tree, also_late=True)
        if room_of(target) not in known
    ]
    assert wrong == []


@pytest.mark.parametrize("tool", TOOLS)
def test_what_every_room_uses_imports_no_room(tool: str) -> None:
    targets = {room_of(target) for target in imports(modules()[f"{NAME}.{tool}"], also_late=True)}
    assert targets <= {"", *TOOLS}
