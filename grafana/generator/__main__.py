"""Write grafana/dashboards.

usage: python -m grafana.generator    (make dashboards; from the repository's root)
"""

from __future__ import annotations

from pathlib import Path

from grafana.generator.folder import files

FOLDER = Path(__file__).parents[1] / "dashboards"


def main() -> None:
    """Write all dashboards, and remove what is none any more."""
    wanted = files()
    for path in FOLDER.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        (FOLDER / name).write_text(content)
        print(f"· grafana/dashboards/{name}")


if __name__ == "__main__":
    main()
