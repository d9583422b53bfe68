"""A journal's directory: which parts are whole, and what is still in segments."""

from __future__ import annotations

from pathlib import Path

from esper_exporter.journal.parts import MANIFEST, read_manifest

PARTS = "parts"


def sealed_parts(journal: Path) -> tuple[list[Path], list[str]]:
    """The parts that can be read, oldest first, and what is wrong with the others."""
    if (journal / MANIFEST).is_file():
        candidates = [journal]
    else:
        candidates = sorted(p for p in (journal / PARTS).glob("*") if (p / MANIFEST).is_file())
    good, bad = [], []
    for part in candidates:
        try:
            manifest = read_manifest(part)
            for name, told in manifest["files"].items():
                if (part / name).stat().st_size != told["bytes"]:
                    raise ValueError(f"{part / name}: not the size that its manifest says")
        except (ValueError, OSError) as problem:
            bad.append(f"{problem}; left out")
            continue
        good.append(part)
    return good, bad


def unsealed(journal: Path, scratch: Path, warnings: list[str]) -> list[Path]:
    """Parts made for now of the segments that are not compacted yet."""
    return []
