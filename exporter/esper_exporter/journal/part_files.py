"""The files of a part: its manifest, sizes and checksums."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

VERSION = 1

MANIFEST = "part.json"


def stamp_of(moment: datetime | None) -> str | None:
    """A time as ISO text, UTC."""
    return None if moment is None else moment.replace(tzinfo=UTC).isoformat()


def checksum(path: Path) -> dict[str, int]:
    """Size in bytes and CRC-32 of a file."""
    crc = size = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            crc = zlib.crc32(piece, crc)
            size += len(piece)
    return {"bytes": size, "crc32": crc}


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a part. Raises ValueError where it is missing, damaged or another's."""
    try:
        sealed = json.loads((directory / MANIFEST).read_bytes())
        manifest: dict[str, Any] = sealed["manifest"]
        right = zlib.crc32(json.dumps(manifest, indent=1).encode()) == sealed["crc32"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ValueError(f"{directory}: no readable {MANIFEST} ({problem})") from None
    if not right:
        raise ValueError(f"{directory}: {MANIFEST} does not match its checksum")
    if manifest.get("version") != VERSION:
        raise ValueError(f"{directory}: version {manifest.get('version')}, want {VERSION}")
    return manifest
