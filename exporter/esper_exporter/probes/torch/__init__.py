"""The torch probe: measures a factored policy's PPO updates and emits them as contract events."""

from esper_exporter.probes.torch.probe import PolicyProbe
from esper_exporter.probes.torch.update import PolicyUpdate

__all__ = ["PolicyProbe", "PolicyUpdate"]
