"""The wheel of the installed package, packed again from its files.

The package is on no index. What deploys it (the image of the compose stack) installs it from the
wheel that lies beside, so the exact version that wrote the files is the one that runs.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from importlib import metadata

DISTRIBUTION = "esper-exporter"

_INSTALLERS = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "RECORD"})
"""Files of the metadata that an installer writes and a wheel does not have, or has anew."""


def packed_wheel() -> tuple[str, bytes] | None:
    """Name and content of the wheel; None when the package runs from a checkout.

    The same installation always gives the same bytes.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None
    if _is_checkout(distribution):
        return None
    folder = f"esper_exporter-{distribution.version}.dist-info"
    content: dict[str, bytes] = {}
    for path in distribution.files or ():
        parts = path.parts
        wanted = parts[0] == "esper_exporter" or (
            parts[0] == folder and path.name not in _INSTALLERS
        )
        if wanted and "__pycache__" not in parts:
            content[path.as_posix()] = path.read_binary()
    record = "".join(
        f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in content.items()
    )
    content[f"{folder}/RECORD"] = f"{record}{folder}/RECORD,,\n".encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in sorted(content):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o755 if content[name].startswith(b"#!") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, content[name])
    return f"esper_exporter-{distribution.version}-py3-none-any.whl", archive.getvalue()


def _is_checkout(distribution: metadata.Distribution) -> bool:
    origin = distribution.read_text("direct_url.json")
    return bool(origin and json.loads(origin).get("dir_info", {}).get("editable"))


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
