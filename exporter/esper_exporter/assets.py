"""The files that come with the package: dashboards, rules, and what deploys it all.

A wheel carries them in ``assets/``. A checkout has them where they are written, and says in
``pyproject.toml`` which go into the wheel.
"""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath

_PACKAGE = Path(__file__).parent


def assets() -> dict[PurePosixPath, Path]:
    """Each file by its path below the folder that they are written to."""
    packed = _PACKAGE / "assets"
    if packed.is_dir():
        root, chosen = packed, [packed]
    else:
        root = _PACKAGE.parents[1]
        project = tomllib.loads((root / "pyproject.toml").read_text())
        included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
        chosen = [root / name for name in included]
    files = [path for one in chosen for path in (sorted(one.rglob("*")) if one.is_dir() else [one])]
    return {
        PurePosixPath(path.relative_to(root).as_posix()): path
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }
