"""esper-exporter: an in-process Prometheus exporter for esper's reinforcement-learning runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = ["Exporter", "PolicyProbe", "RankClock", "__version__", "attach"]

if TYPE_CHECKING:
    from esper_exporter.adapters.esper.attach import attach
    from esper_exporter.exporter import Exporter
    from esper_exporter.probes.torch.probe import PolicyProbe
    from esper_exporter.probes.torch.rank_clock import RankClock


def __getattr__(name: str) -> object:
    # Loaded on first use: `import esper_exporter` alone costs nothing, and needs no torch.
    if name == "Exporter":
        from esper_exporter.exporter import Exporter

        return Exporter
    if name == "PolicyProbe":
        from esper_exporter.probes.torch.probe import PolicyProbe

        return PolicyProbe
    if name == "RankClock":
        from esper_exporter.probes.torch.rank_clock import RankClock

        return RankClock
    if name == "attach":
        from esper_exporter.adapters.esper.attach import attach

        return attach
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
