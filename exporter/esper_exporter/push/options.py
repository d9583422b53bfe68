"""What the settings say of pushing: where to, how often, what may wait."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esper_exporter.push.client_config import ClientConfig
    from esper_exporter.settings import Settings

LIBRARIES = {"cramjam": "cramjam", "google.protobuf": "protobuf"}
"""The modules of the extra ``push``, and what installs each."""
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class PushOptions:
    """``labels`` are the external ones, ``directory`` keeps what could not be sent (None: memory
    alone), ``interval`` and ``max_age`` are seconds."""

    config: ClientConfig
    interval: float
    labels: Mapping[str, str]
    directory: Path | None
    max_bytes: int
    max_age: float


def external_labels(texts: tuple[str, ...], pid: int | None = None) -> dict[str, str]:
    """Labels from ``name=value`` texts, ``job`` and ``instance`` among them. Without one,
    ``instance`` is this process's alone (or that of ``pid``, on whose behalf it pushes), so that
    two never write the same series.

    Raises ValueError.
    """
    labels = {"job": "esper", "instance": f"{socket.gethostname()}:{pid or os.getpid()}"}
    for text in texts:
        name, is_one, value = text.partition("=")
        if not is_one or not LABEL.fullmatch(name) or name.startswith("__"):
            raise ValueError(f"push_labels must be NAME=VALUE, not {text!r}")
        labels[name] = value
    return labels


def push_options(settings: Settings, push: str, pid: int | None = None) -> PushOptions:
    """Options for pushing to an address, of this process or on behalf of ``pid``.

    Raises ValueError with a line for the user.
    """
    from esper_exporter.push.client_config import client_config

    missing = [name for module, name in LIBRARIES.items() if not _installed(module)]
    if missing:
        needed = " and ".join(missing)
        raise ValueError(f"push needs {needed}, missing here: pip install {' '.join(missing)}")
    config = client_config(push, settings.push_config)
    folder = hashlib.sha256(config.url.encode()).hexdigest()[:12]
    state = settings.state_dir
    return PushOptions(
        config=config,
        interval=settings.push_interval,
        labels=external_labels(settings.push_labels or (), pid),
        directory=None if state is None else state / "push" / folder,
        max_bytes=settings.push_max_bytes,
        max_age=settings.push_max_age,
    )


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
