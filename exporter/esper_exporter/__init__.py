"""esper-exporter: an in-process Prometheus exporter for esper's reinforcement-learning runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = ["Exporter", "__version__"]

if TYPE_CHECKING:
    from esper_exporter.exporter import Exporter


def __getattr__(name: str) -> object:
    # Loaded on first use: `import esper_exporter` alone costs nothing.
    if name == "Exporter":
        from esper_exporter.exporter import Exporter

        return Exporter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
