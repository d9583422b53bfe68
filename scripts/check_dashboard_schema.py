"""Hold the dashboards against Grafana's own types, for development.

usage: check_dashboard_schema.py [VERSION]

npm fetches @grafana/schema in that version (the pinned one) and ts-json-schema-generator into a
temporary folder; the type of a classic dashboard becomes a JSON schema, and every file of
grafana/dashboards/ is validated by it. Prints what is wrong where; exits 1 if something is, and if
an exception that is listed here is of no use any more. Says that it did not run where npm is
missing.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError

DASHBOARDS = Path(__file__).parents[1] / "grafana" / "dashboards"
VERSION = "13.2.3"
PACKAGES = ("ts-json-schema-generator@2.4.0", "typescript@5.9.3")
TYPES = "node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen.d.ts"
EXCEPTIONS = {
    (
        "annotations/list/*",
        "('expr', 'step', 'tagKeys', 'textFormat', 'titleFormat', 'useValueForTime' were",
    ): "the query of an annotation is its data source's: Prometheus' fields",
    ("templating/list/*", "('definition' was unexpected)"): "Grafana itself writes it beside query",
    ("templating/list/*/current", "is a required property"): "empty: Grafana chooses when it loads",
}
"""Where, and what the validator reports of it: why it stays."""


def schema(folder: Path, version: str) -> dict[str, Any]:
    """Grafana's type of a dashboard as a JSON schema."""
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run([*install, f"@grafana/schema@{version}", *PACKAGES], cwd=folder, check=True)
    shutil.copy(folder / TYPES, folder / "dashboard.ts")
    settings = {
        "compilerOptions": {
            "target": "es2020",
            "module": "esnext",
            "moduleResolution": "bundler",
            "strict": True,
            "noEmit": True,
        },
        "files": ["dashboard.ts"],
    }
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    subprocess.run(
        [
            *("node_modules/.bin/ts-json-schema-generator", "--path", "dashboard.ts"),
            *("--type", "Dashboard", "--tsconfig", "tsconfig.json", "--no-type-check"),
            *("--out", "schema.json"),
        ],
        cwd=folder,
        check=True,
    )
    found: dict[str, Any] = json.loads((folder / "schema.json").read_text())
    return found


def complaints(validator: Draft7Validator) -> Iterator[tuple[str, str, str]]:
    """File, place with * for numbers, and message of each thing that is wrong."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        error: ValidationError
        for error in validator.iter_errors(json.loads(path.read_text())):
            place = re.sub(r"\b\d+\b", "*", "/".join(map(str, error.absolute_path)))
            yield path.name, place, error.message[-300:]


def main() -> int:
    version = sys.argv[1] if len(sys.argv) > 1 else VERSION
    if shutil.which("npm") is None:
        print("not run: npm is missing; apt-get install npm")
        print("not proven here: the dashboards are valid by Grafana's own types")
        return 0
    with tempfile.TemporaryDirectory() as name:
        validator = Draft7Validator(schema(Path(name), version))
    used = set()
    wrong = 0
    for file, place, message in complaints(validator):
        excused = [key for key in EXCEPTIONS if key[0] == place and key[1] in message]
        used.update(excused)
        if not excused:
            wrong += 1
            print(f"{file}: {place}: {message}")
    for key in EXCEPTIONS.keys() - used:
        wrong += 1
        print(f"an exception of no use: {key}")
    count = len(list(DASHBOARDS.glob("*.json")))
    print(f"@grafana/schema {version}: {count} dashboards, {wrong} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
